"""Adds, lists, removes and tests the webhooks of a server."""

import argparse
from typing import TYPE_CHECKING

from kinema.cli.serve import add_storage_options, database_of
from kinema.errors import ServeError
from kinema.terminal import table

if TYPE_CHECKING:
    from kinema.serve.store.database import Database


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema webhooks`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="send the events of a caller's videos to an address")
    add.set_defaults(act=_add)
    add.add_argument("url", metavar="URL", help="address that receives the events")
    add.add_argument(
        "--owner", default="local", metavar="ID", help="id of a key (default: callers without one)"
    )
    listed = actions.add_parser("list", help="list the webhooks")
    listed.set_defaults(act=_list)
    remove = actions.add_parser("remove", help="remove a webhook")
    remove.set_defaults(act=_remove)
    test = actions.add_parser("test", help="send a test event")
    test.set_defaults(act=_test)
    for action in (remove, test):
        action.add_argument("id", metavar="ID", help="its id in 'kinema webhooks list'")
    for action in (add, listed, remove, test):
        add_storage_options(action)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema webhooks`."""
    with database_of(arguments) as database:
        arguments.act(arguments, database)
    return 0


def _add(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import hooks

    id, secret = hooks.add(database, arguments.owner, arguments.url)
    print(f"{id}; the secret is not shown again:\n{secret}")


def _list(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import hooks

    rows = [("id", "owner", "url", "state")]
    rows += [(row.id, row.owner, row.url, row.disabled or "active") for row in hooks.rows(database)]
    print(table(rows))


def _remove(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import hooks

    if not hooks.remove(database, arguments.id):
        raise _unknown(arguments.id)
    print(f"removed {arguments.id}")


def _test(arguments: argparse.Namespace, database: "Database") -> None:
    from kinema.serve.store import hooks

    if arguments.id not in {row.id for row in hooks.rows(database)}:
        raise _unknown(arguments.id)
    print(f"{hooks.test(database, arguments.id)} is sent next by the running server")


def _unknown(id: str) -> ServeError:
    return ServeError(f"there is no webhook {id}: see 'kinema webhooks list'")
