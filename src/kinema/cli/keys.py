"""Creates, lists and revokes the API keys of a server."""

import argparse
import time
from typing import TYPE_CHECKING

from kinema.cli.serve import add_storage_options, database_of
from kinema.errors import ServeError
from kinema.terminal import table

if TYPE_CHECKING:
    from kinema.serve.store.database import Database


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema keys`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="create a key and print it once")
    create.set_defaults(act=_create)
    create.add_argument("name", metavar="NAME", help="who or what uses it")
    create.add_argument("--scopes", default="videos.read,videos.write", metavar="LIST", help="also: admin")
    create.add_argument(
        "--priority", type=int, default=0, metavar="N", help="jobs of lower numbers run first"
    )
    create.add_argument("--max-queued", type=int, metavar="N", help="most jobs that wait or run")
    create.add_argument("--seconds-per-day", type=float, metavar="S", help="most seconds of video a day")
    create.add_argument("--expires", type=float, metavar="DAYS", help="days until the key ends")
    listed = actions.add_parser("list", help="list the keys")
    listed.set_defaults(act=_list)
    revoke = actions.add_parser("revoke", help="revoke a key")
    revoke.set_defaults(act=_revoke)
    revoke.add_argument("id", metavar="ID", help="its id or first characters in 'kinema keys list'")
    for action in (create, listed, revoke):
        add_storage_options(action)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema keys`."""
    with database_of(arguments) as database:
        arguments.act(arguments, database)
    return 0


def _create(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import keys
    from kinema.serve.store.base import Limits

    id, key = keys.create(
        database,
        arguments.name,
        scopes=arguments.scopes.split(","),
        priority=arguments.priority,
        limits=Limits(arguments.max_queued, arguments.seconds_per_day),
        expires_in_s=None if arguments.expires is None else arguments.expires * 86_400,
    )
    print(f"{id} ({arguments.name}); the key is not shown again:\n{key}")


def _list(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import keys

    rows = [("id", "key", "name", "scopes", "priority", "state")]
    for row in keys.rows(database):
        state = "valid"
        if row.revoked is not None:
            state = "revoked"
        elif row.expires is not None and row.expires < time.time():
            state = "expired"
        rows.append((row.id, f"{row.shown}...", row.name, row.scopes, str(row.priority), state))
    print(table(rows))


def _revoke(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import keys

    if not keys.revoke(database, arguments.id):
        raise ServeError(f"there is no valid key {arguments.id}: see 'kinema keys list'")
    print(f"revoked {arguments.id}")
