"""Measurements of what models make."""
