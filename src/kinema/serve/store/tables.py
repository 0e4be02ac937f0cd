"""The tables. Times are seconds since 1970; columns named `*_json` hold JSON text."""

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1
metadata = MetaData()

settings = Table("settings", metadata, Column("name", String, primary_key=True), Column("value", Text))

videos = Table(
    "videos",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("status", String, nullable=False),  # queued, in_progress, completed, failed or deleted
    Column("model", String, nullable=False),
    Column("shown_model", String, nullable=False),  # as the client named it
    Column("prompt", Text, nullable=False),
    Column("size", String, nullable=False),
    Column("seconds", String, nullable=False),
    Column("length_s", Double, nullable=False),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("completed", Double),
    Column("expires", Double),
    Column("deleted", Double),
    Column("remixed_from", String),
    Column("batch", String),
    Column("error_code", String),
    Column("error_message", Text),
    Column("request_json", Text, nullable=False),
    Column("inputs_json", Text, nullable=False),  # content hash -> blob
    Column("detail_json", Text, nullable=False),  # what replies repeat
    Column("result_json", Text),  # blobs and report of a completed job
    # scheduling
    Column("priority", Integer, nullable=False),  # lower runs first
    Column("batch_key", String, nullable=False),  # equal for jobs that can run together
    Column("worker", String),
    Column("token", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("is_cancelled", Boolean, nullable=False),
    # progress
    Column("phase", String),
    Column("step", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("preview", String),
    Index("videos_by_state", "status", "priority", "created"),
    Index("videos_by_owner", "owner", "created", "id"),
    Index("videos_by_batch", "batch"),
    Index("videos_waiting", "owner", "status"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("device", String, nullable=False),
    Column("models_json", Text, nullable=False),
    Column("started", Double, nullable=False),
    Column("seen", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("digest", String, nullable=False, unique=True),
    Column("shown", String, nullable=False),  # the first characters of the key
    Column("name", String, nullable=False),
    Column("scopes", String, nullable=False),  # separated by spaces
    Column("priority", Integer, nullable=False),
    Column("max_queued", Integer),
    Column("seconds_per_day", Double),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("video", String, nullable=False),
    Column("created", Double, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", String, nullable=False),
    Column("created", Double, nullable=False),
    Column("disabled", String),  # the reason
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String, primary_key=True),  # the event's id and the webhook's
    Column("event", String, nullable=False),
    Column("webhook", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("due", Double),  # None: delivered, or given up
    Column("tries", Integer, nullable=False),
    Column("outcome", String),
    Index("deliveries_by_due", "due"),
)

characters = Table(
    "characters",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("blob", String, nullable=False),
    Column("created", Double, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("blob", String, nullable=False),
    Column("created", Double, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("status", String, nullable=False),  # in_progress, finalizing, completed, cancelled, failed
    Column("input_file", String, nullable=False),
    Column("output_file", String),
    Column("error_file", String),
    Column("lines_json", Text, nullable=False),  # [{custom_id, video | error}]
    Column("metadata_json", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("completed", Double),
    UniqueConstraint("id", "owner"),
)
