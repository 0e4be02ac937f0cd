"""Runs a function in several connected processes of this machine, as torchrun does."""

import os
import socket
import warnings

import torch
import torch.multiprocessing as mp


def on_ranks(number, function, *arguments):
    """Call `function(*arguments)` in `number` processes with torchrun's environment variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_start, (number, port, function, arguments), nprocs=number)


def _start(rank, number, port, function, arguments):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    function(*arguments)
