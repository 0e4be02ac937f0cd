"""Options that several verbs share: the fields of `kinema.Request`, and what they do not cover."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from kinema.cli.arguments import interval, size
from kinema.config import options_of
from kinema.generation.request import Request
from kinema.video.resize import Fit

SIZE, LENGTH = ("width", "height"), ("seconds", "frames")
SAMPLING = ("steps", "sampler", "guidance", "shift")
"""Fields of a request; --size sets the first two."""


def add_task_options(
    parser: argparse.ArgumentParser, *, length: bool = False, expansion: bool = False
) -> None:
    """The options of every verb that generates a video from a request.

    Most are fields of `Request`. `length` adds --seconds and --frames, `expansion` the options of prompt
    expansion.
    """
    add_output_options(parser)
    request = parser.add_argument_group("request")
    request.add_argument(
        "--fit",
        choices=get_args(Fit),
        default="crop",
        help="how inputs of another shape are fitted: centre crop (default), black bars, or stretched",
    )
    hidden = (*SIZE, *SAMPLING, *(() if length else LENGTH))
    _add_fields(request, (name for name in options_of(Request) if name not in hidden))
    add_sampling_options(request)
    request.add_argument(
        "--job",
        type=Path,
        metavar="DIR",
        help="save progress in this folder, so that 'kinema continue DIR' can finish an interrupted run",
    )
    if expansion:
        _add_expansion_options(request)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The result's files, and where and how the model runs."""
    result = parser.add_argument_group("result")
    result.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: .mp4, .webm, .mkv, .gif, or .png for a single frame",
    )
    result.add_argument("--no-sheet", action="store_true", help="do not write a contact sheet")
    result.add_argument(
        "--preview",
        type=Path,
        metavar="FILE.gif",
        help="write a preview during sampling, updated as it goes on",
    )

    compute = parser.add_argument_group("computation")
    add_device_option(compute)
    compute.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="precision of the networks (default: bf16 where it is fast, else fp32)",
    )
    compute.add_argument(
        "--offload",
        choices=("none", "text", "layers"),
        help="for Wan models: keep all on the device, load the text encoder only when needed (default), "
        "or also load the backbone's blocks one by one",
    )
    compute.add_argument(
        "--attention",
        default="auto",
        metavar="NAME",
        help="attention kernel of the backbone: auto, flash, cudnn, efficient or math",
    )
    compute.add_argument(
        "--beyond-memory", action="store_true", help="start even if the free memory seems too small"
    )
    compute.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:scale]",
        help="LoRA adapter to apply; repeatable",
    )


def add_device_option(parser: argparse._ActionsContainer) -> None:
    """The device to compute on."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="device to compute on (default: the fastest)"
    )


def add_sampling_options(parser: argparse._ActionsContainer) -> None:
    """The settings of the sampler that generation and evaluation share."""
    parser.add_argument("--size", type=size, metavar="WxH", help="width and height in pixels, e.g. 128x128")
    _add_fields(parser, SAMPLING)


def given_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request that options were given for."""
    width, height = arguments.size or (None, None)
    given = {**vars(arguments), "width": width, "height": height}
    return {name: given[name] for name in options_of(Request) if given.get(name) is not None}


def _add_fields(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """A flag for each of these fields of a request. A flag that is not given is None."""
    for name in names:
        kind, option = options_of(Request)[name]
        flag = "--" + (option.flag or name).replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, dest=name, action="store_true", default=None, help=option.help)
        else:
            parse = interval if kind == tuple[float, float] else kind
            parser.add_argument(flag, dest=name, type=parse, metavar=option.metavar, help=option.help)


def _add_expansion_options(parser: argparse._ActionsContainer) -> None:
    """Prompt expansion. The request's field `expander` is another thing: the name of its prompt's author."""
    parser.add_argument(
        "--expand", action="store_true", help="expand the prompt to the style of the training captions first"
    )
    parser.add_argument(
        "--expander",
        dest="expander_source",
        default="shipped",
        metavar="WHERE",
        help="the expander: address of a chat endpoint, .toml file with its settings, or model folder "
        "(default: the one in the package)",
    )
