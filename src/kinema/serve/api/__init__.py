"""The HTTP side of the server. It never imports torch."""
