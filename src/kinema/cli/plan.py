"""Estimates what a video will take, without loading a model: tokens, operations, memory of every phase, and
time."""

import argparse

from kinema.cli.arguments import size
from kinema.errors import RequestError

MEMORY_GIB = 24.0
TFLOPS = 165.0  # dense bfloat16 of an RTX 4090 (NVIDIA's Ada whitepaper, with float32 accumulation)
LIMITS = {
    "seconds": (0.01, 1e6),
    "frames": (1, 1e6),
    "steps": (1, 1e6),
    "device_memory": (0.1, 1e6),
    "tflops": (1e-3, 1e6),
    "utilisation": (1e-3, 1),
}
"""Smallest and largest value of each number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema plan`."""
    length = parser.add_mutually_exclusive_group()
    parser.add_argument(
        "--model",
        default="wan-2.2-5b",
        metavar="NAME",
        help="a published model by name, shipped, or a model folder or file",
    )
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="width and height in pixels (default: the model's)"
    )
    length.add_argument("--seconds", type=float, metavar="S", help="length in seconds")
    length.add_argument("--frames", type=int, metavar="N", help="length in frames")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="number of sampler steps (default: the model's)"
    )
    parser.add_argument("--no-guidance", action="store_true", help="one forward pass per step instead of two")
    parser.add_argument(
        "--precision",
        choices=("bf16", "fp32"),
        default="bf16",
        help="precision of the weights (default: bf16)",
    )
    parser.add_argument(
        "--offload",
        choices=("none", "text", "layers"),
        help="as for 'kinema generate'",
    )
    parser.add_argument(
        "--device-memory",
        type=float,
        default=MEMORY_GIB,
        metavar="GIB",
        help=f"memory of the device (default: {MEMORY_GIB:g})",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=TFLOPS,
        metavar="N",
        help=f"peak TFLOP/s of the device (default: {TFLOPS:g})",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        metavar="U",
        help="share of the peak that is reached (default: 0.4)",
    )
    parser.add_argument(
        "--compare", default="", metavar="NAMES", help="also print image models for comparison: sd,sdxl"
    )


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema plan`."""
    from kinema.cli.plan_report import print_plan

    for name, (low, high) in LIMITS.items():
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise RequestError(
                f"--{name.replace('_', '-')}={value:g} is out of range: use {low:g} to {high:g}"
            )
    print_plan(arguments)
    return 0
