"""From worlds and files to batches."""
