"""What an operator chooses, for the server and its workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kinema.serve.store.database import sqlite_url

Unsupported = Literal["nearest", "reject"]
"""What happens to a size or length that a model does not support."""
MIB = 1 << 20


@dataclass(frozen=True)
class Storage:
    """Where jobs and files are kept. The defaults are inside `data`."""

    data: Path
    store: str = ""
    """Address of the database: "" is SQLite in `data`."""
    blobs: str = ""
    """Address of a bucket, e.g. s3://bucket/prefix: "" is a folder in `data`."""
    work: Path | None = None
    """Folder of the jobs that run, shared by the workers of one machine. None is inside `data`."""

    @property
    def store_url(self) -> str:
        """The address of the database. Raises `ServeError` for SQLite on a network file system."""
        return self.store or sqlite_url(self.data / "kinema.db")

    @property
    def work_folder(self) -> Path:
        """See `work`."""
        return self.work or self.data / "work"


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker process needs."""

    storage: Storage
    models: Mapping[str, str]
    """Path of each served model by its name in requests."""
    device: str = "auto"
    precision: str = "auto"
    lease_s: float = 30.0
    step_timeout_s: float = 600.0
    """A step that takes longer counts as hung: the worker stops renewing its leases and ends."""
    batch_size: int = 4
    """Most jobs that are generated together."""
    keep_s: float = 7 * 86_400.0
    """How long results are kept."""
    poll_s: float = 0.25
    previews: bool = True
    sign_certificate: str = ""
    """PEM file of the certificate chain for C2PA, the leaf first. "" signs nothing."""
    sign_key: str = ""


@dataclass(frozen=True)
class ServerSettings:
    """What the HTTP side needs."""

    storage: Storage
    models: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of models, e.g. sora-2."""
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    """Names under which browsers may reach the server, besides `host` and this machine's own."""
    unsupported: Unsupported = "nearest"
    max_seconds: float = 120.0
    """Longest result."""
    max_upload_bytes: int = 200 * MIB
    image_hosts: tuple[str, ...] = ()
    """Hosts that an `image_url` may name. Empty allows data URLs only."""
    webhook_hosts: tuple[str, ...] = ()
    """Hosts of webhooks that may have addresses in private networks."""
    max_queued: int | None = 1000
    """Jobs that wait or run, for callers without a key of their own limits."""
    requests_per_minute: float = 1200.0
    """Requests of a caller to one process that create something."""
    redirect_content: bool = False
    """Answer downloads with a redirect to a signed address of the bucket."""
    policy: str = "off"
    """Moderation of prompts: off, words:FILE or the address of a moderations endpoint."""
    log_prompts: bool = False
    lease_s: float = 30.0
    needs_keys: bool = False
    signs: bool = False
    """Whether workers sign results with a certificate (C2PA)."""
