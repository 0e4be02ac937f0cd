"""Starts the server: the Sora videos API, its jobs and workers, and a page in the browser."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.serve.settings import Storage, WorkerSettings
    from kinema.serve.store.database import Database

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema serve`."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port (default: 8000; 0: any)")
    add_storage_options(parser)
    add_worker_options(parser)
    parser.add_argument(
        "--no-worker", action="store_true", help="start no workers here (see 'kinema worker')"
    )
    parser.add_argument(
        "--model-alias",
        action="append",
        default=[],
        metavar="ALIAS=NAME",
        help="another name of a model; repeatable (default: sora-2 and sora-2-pro are the first model)",
    )
    parser.add_argument(
        "--unsupported",
        choices=("nearest", "reject"),
        default="nearest",
        help="sizes and lengths that a model does not support: use the nearest and report it, or reject",
    )
    _add_edge_options(parser)
    parser.add_argument(
        "--redirect", action="store_true", help="answer downloads with signed addresses of the bucket"
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds between 'not ready' and the end on SIGTERM",
    )


def _add_edge_options(parser: argparse.ArgumentParser) -> None:
    """What callers may do."""
    parser.add_argument("--max-seconds", type=float, default=120.0, metavar="S", help="longest video")
    parser.add_argument("--max-upload", type=int, default=200, metavar="MiB", help="largest request body")
    parser.add_argument(
        "--max-queued", type=int, default=1000, metavar="N", help="most waiting jobs of a caller"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=1200.0,
        metavar="N",
        help="requests a minute of a caller that create something",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name under which browsers reach the server, behind a proxy; repeatable",
    )
    parser.add_argument(
        "--image-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host that an image_url may name; repeatable (default: data URLs only)",
    )
    parser.add_argument(
        "--webhook-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host of webhooks in a private network; repeatable",
    )
    parser.add_argument(
        "--policy",
        default="off",
        metavar="WHICH",
        help="moderation of prompts: off, words:FILE, or the address of a /v1/moderations endpoint",
    )


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """Where jobs and files are kept."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path.home() / ".kinema",
        metavar="DIR",
        help="folder of everything that the server keeps (default: ~/.kinema)",
    )
    parser.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="database of the jobs: postgresql://... (default: SQLite in --data)",
    )
    parser.add_argument(
        "--blobs",
        default="",
        metavar="URL",
        help="bucket of the files: s3://... (default: a folder in --data)",
    )


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """How the workers run."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="model to serve; repeatable (default: the model in the package)",
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="NAME",
        help="device of a worker; repeat it for more workers (default: one, on the fastest device)",
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the networks"
    )
    parser.add_argument(
        "--lease", type=float, default=30.0, metavar="S", help="time after which a lost job is taken over"
    )
    parser.add_argument(
        "--step-timeout", type=float, default=600.0, metavar="S", help="longest step of a job"
    )
    parser.add_argument(
        "--batch", type=int, default=4, metavar="N", help="most jobs that are generated together"
    )
    parser.add_argument("--keep", type=float, default=7.0, metavar="DAYS", help="how long results are kept")
    parser.add_argument(
        "--sign",
        type=Path,
        nargs=2,
        metavar=("CHAIN", "KEY"),
        help="sign results with a certificate chain and its key, PEM files (C2PA)",
    )
    parser.add_argument("--no-preview", action="store_true", help="make no previews while jobs run")


@contextmanager
def database_of(arguments: argparse.Namespace) -> "Iterator[Database]":
    """The open database of a server, whether or not the server runs."""
    from kinema.serve.store.database import Database

    arguments.data.mkdir(parents=True, exist_ok=True)
    database = Database(storage_of(arguments).store_url)
    try:
        yield database
    finally:
        database.close()


def storage_of(arguments: argparse.Namespace) -> "Storage":
    """Where jobs and files are kept."""
    from kinema.serve.settings import Storage

    return Storage(arguments.data, arguments.store, arguments.blobs)


def workers_of(arguments: argparse.Namespace) -> "list[WorkerSettings]":
    """The settings of one worker for each device."""
    from kinema.serve.models import parse_models
    from kinema.serve.settings import WorkerSettings

    settings = WorkerSettings(
        storage_of(arguments),
        parse_models(arguments.model),
        precision=arguments.precision,
        lease_s=arguments.lease,
        step_timeout_s=arguments.step_timeout,
        batch_size=arguments.batch,
        keep_s=arguments.keep * 86_400,
        previews=not arguments.no_preview,
        sign_certificate=str(arguments.sign[0]) if arguments.sign else "",
        sign_key=str(arguments.sign[1]) if arguments.sign else "",
    )
    return [replace(settings, device=device) for device in arguments.device or ["auto"]]


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema serve`."""
    from kinema.serve.models import parse_models
    from kinema.serve.server import serve
    from kinema.serve.settings import MIB, ServerSettings

    models = parse_models(arguments.model)
    default_aliases = [f"{alias}={next(iter(models))}" for alias in ("sora-2", "sora-2-pro")]
    pairs = [alias.partition("=") for alias in arguments.model_alias or default_aliases]
    settings = ServerSettings(
        storage_of(arguments),
        models,
        {alias: name for alias, _, name in pairs},
        host=arguments.host,
        port=arguments.port,
        hosts=tuple(arguments.allow_host),
        unsupported=arguments.unsupported,
        max_seconds=arguments.max_seconds,
        max_upload_bytes=arguments.max_upload * MIB,
        image_hosts=tuple(arguments.image_host),
        webhook_hosts=tuple(arguments.webhook_host),
        max_queued=arguments.max_queued,
        requests_per_minute=arguments.rate,
        redirect_content=arguments.redirect,
        policy=arguments.policy,
        lease_s=arguments.lease,
        needs_keys=arguments.host not in LOOPBACK,
        signs=bool(arguments.sign),
    )
    workers = [] if arguments.no_worker else workers_of(arguments)
    return serve(settings, workers, drain_wait_s=arguments.drain)
