"""Options that several verbs share. Their names in the parsed arguments are the fields of
`kinema.Request`."""

import argparse
from pathlib import Path

from kinema.cli.arguments import interval, size

FITS = ("crop", "pad", "stretch")


def add_task_options(
    parser: argparse.ArgumentParser, *, length: bool = False, expansion: bool = False
) -> None:
    """The options of every verb that generates a video from a request.

    `length` adds --seconds and --frames, `expansion` the options of prompt expansion.
    """
    add_output_options(parser)
    request = parser.add_argument_group("request")
    if length:
        add_length_options(request)
    _add_request_options(request)
    if expansion:
        _add_expansion_options(request)
    add_sampling_options(request)


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


def add_length_options(parser: argparse._ActionsContainer) -> None:
    """The length of the result, in seconds or in frames."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, metavar="S", help="length in seconds")
    length.add_argument("--frames", type=int, metavar="N", help="length in frames")


def add_sampling_options(parser: argparse._ActionsContainer) -> None:
    """The settings of the sampler that generation and evaluation share."""
    parser.add_argument("--size", type=size, metavar="WxH", help="width and height in pixels, e.g. 128x128")
    parser.add_argument("--steps", type=int, metavar="N", help="number of sampler steps")
    parser.add_argument(
        "--sampler", metavar="NAME", help="euler, heun, unipc and others; an unknown name lists all"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        metavar="G",
        help="scale of classifier-free guidance; higher follows the prompt more closely, 1 turns it off",
    )
    parser.add_argument(
        "--shift",
        type=float,
        metavar="S",
        help="timestep shift towards noise; 1 is no shift",
    )


def _add_request_options(parser: argparse._ActionsContainer) -> None:
    """The remaining fields of a request."""
    parser.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="how inputs of another shape are fitted: centre crop (default), black bars, or stretched",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)")
    parser.add_argument(
        "--negative", dest="negative_prompt", default="", metavar="TEXT", help="negative prompt"
    )
    parser.add_argument(
        "--guidance-interval",
        type=interval,
        metavar="LOW,HIGH",
        help="apply guidance only between these diffusion times (0 data, 1 noise), which is faster",
    )
    parser.add_argument(
        "--cache",
        type=float,
        metavar="ERROR",
        help="forecast steps while the relative error of a forecast is at most this, e.g. 0.03",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="frames per window (default: as many as the model was trained with)",
    )
    parser.add_argument(
        "--anchor", action="store_true", help="let every window of a long video attend to its first frame"
    )
    parser.add_argument(
        "--model",
        default="shipped",
        metavar="DIR",
        help="model folder or file, including Wan models (default: the model in the package)",
    )
    parser.add_argument(
        "--beyond-trained",
        action="store_true",
        help="allow sizes and windows that the model was not trained with",
    )
    parser.add_argument(
        "--job",
        type=Path,
        metavar="DIR",
        help="save progress in this folder, so that 'kinema continue DIR' can finish an interrupted run",
    )


def _add_expansion_options(parser: argparse._ActionsContainer) -> None:
    """Prompt expansion. The request's field `expander` is another thing: the name of what wrote its
    prompt."""
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
