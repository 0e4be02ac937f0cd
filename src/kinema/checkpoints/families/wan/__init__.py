"""The Wan family: published and converted models, their files in every layout, and their encoders."""
