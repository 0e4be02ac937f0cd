"""Durable state: jobs, keys, webhooks, characters, files and batches in one database."""
