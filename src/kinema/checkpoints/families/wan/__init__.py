"""The Wan family: its variants, its files in every published layout, and the encoders that it borrows from transformers."""
