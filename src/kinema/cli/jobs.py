"""Lists, shows, cancels and retries the jobs of a server."""

import argparse
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kinema.cli.serve import add_storage_options, database_of
from kinema.errors import ServeError
from kinema.terminal import table

if TYPE_CHECKING:
    from kinema.serve.store.database import Database


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema jobs`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="list the newest jobs")
    listed.set_defaults(act=_list)
    listed.add_argument("--status", choices=("queued", "in_progress", "completed", "failed"))
    listed.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20)")
    add_storage_options(listed)
    for name, act, help_line in (
        ("show", _show, "print everything that is known about a job"),
        ("cancel", _cancel, "cancel a job"),
        ("retry", _retry, "queue a failed job again"),
    ):
        action = actions.add_parser(name, help=help_line)
        action.set_defaults(act=act)
        action.add_argument("id", metavar="ID", help="the id of the video")
        add_storage_options(action)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema jobs`."""
    with database_of(arguments) as database:
        arguments.act(arguments, database)
    return 0


def _list(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import videos

    rows = [("id", "created", "status", "progress", "size", "seconds", "owner", "prompt")]
    for row in videos.page(database, None, limit=arguments.limit, status=arguments.status).rows:
        prompt = row.prompt if len(row.prompt) <= 48 else f"{row.prompt[:45]}..."
        texts = (
            row.id,
            _time(row.created),
            row.status,
            f"{row.progress} %",
            row.size,
            row.seconds,
            row.owner,
            prompt,
        )
        rows.append(texts)
    print(table(rows))


def _show(arguments: argparse.Namespace, database: "Database") -> None:
    for name, value in _row(arguments, database)._mapping.items():
        if value is None:
            continue
        if name in ("created", "started", "completed", "expires", "deleted"):
            value = _time(value)
        if name.endswith("_json"):
            name, value = name.removesuffix("_json"), json.dumps(json.loads(value), ensure_ascii=False)
        print(f"{name:<14} {value}")


def _cancel(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store.jobs import SqlStore

    row = _row(arguments, database)
    if not SqlStore(database).cancel(row.id, row.owner):
        raise ServeError(f"{row.id} has ended: it is {row.status}")
    print(f"cancelled {row.id}")


def _retry(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import videos

    row = _row(arguments, database)
    if not videos.retry(database, row.id):
        raise ServeError(f"{row.id} is {row.status}: only a failed job can be queued again")
    print(f"queued {row.id}")


def _row(arguments: argparse.Namespace, database: "Database") -> Any:
    from kinema.serve.store import videos

    row = videos.get(database, arguments.id, None)
    if row is None:
        raise ServeError(f"there is no job {arguments.id}: see 'kinema jobs list'")
    return row


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
