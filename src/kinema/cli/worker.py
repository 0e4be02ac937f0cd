"""Starts workers for the jobs of a server that runs elsewhere or with --no-worker."""

import argparse

from kinema.cli.serve import add_storage_options, add_worker_options, workers_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema worker`."""
    add_storage_options(parser)
    add_worker_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema worker`."""
    from kinema.serve.server import work

    return work(workers_of(arguments))
