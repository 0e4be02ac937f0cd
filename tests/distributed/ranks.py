"""Runs functions in several connected processes of this machine, as torchrun does, and a recipe for them."""

import os
import socket
import warnings
from pathlib import Path

import torch
import torch.multiprocessing as mp

RECIPE = """
base = "{recipes}/dit_tiny.toml"
periods = [{{ until = 0.3, batch = 4, latent_frames = 1 }}, {{ until = 1.0, batch = 3, latent_frames = 2 }}]

[data]
num_clips = 4
num_images = 8
num_frames = 5
shapes = [{{ height = 32, width = 32 }}]

[run]
steps = 20
log_every = 1
save_every = 10
sample_every = 20
precision = "fp32"
device = "cpu"

[defaults]
steps = 1
"""


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


def write_recipe(path):
    """A run of twenty steps of a tiny DiT."""
    path.write_text(RECIPE.format(recipes=Path(__file__).parents[2] / "recipes"), encoding="utf-8")
