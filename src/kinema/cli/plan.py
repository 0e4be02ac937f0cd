"""Estimates what a video or a training run will take, without loading a model: tokens, operations, memory and
time.

With --train it plans a run of a recipe on GPUs, and with --validate it prints published runs beside its
estimates.
"""

import argparse
from pathlib import Path

from kinema.cli.arguments import positive, size
from kinema.errors import RequestError

MODEL = "wan-2.2-5b"
MEMORY_GIB = 24.0
TFLOPS = 165.0  # dense bfloat16 of an RTX 4090 (NVIDIA's Ada whitepaper, with float32 accumulation)
LIMITS = {
    "seconds": (0.01, 1e6),
    "frames": (1, 1e6),
    "steps": (1, 1e6),
    "device_memory": (0.1, 1e6),
    "tflops": (1e-3, 1e6),
    "utilisation": (1e-3, 1),
    "price": (0, 1e6),
}
"""Smallest and largest value of each number."""
VIDEO_ONLY = ("no_guidance", "offload", "compare")
TRAINING_ONLY = ("gpus", "batch", "shard", "sequence", "activation_checkpointing", "price")
"""Options that apply to a video, and to a training run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema plan`."""
    length = parser.add_mutually_exclusive_group()
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="a published model by name, shipped, or a model folder or file (default: wan-2.2-5b, or with "
        "--train the recipe's)",
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
        metavar="GIB",
        help=f"memory of the device (default: {MEMORY_GIB:g}, or that of --gpus)",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="N",
        help=f"peak TFLOP/s of the device (default: {TFLOPS:g}, or that of --gpus)",
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
    _add_training(parser.add_argument_group("training"))


def _add_training(group: argparse._ArgumentGroup) -> None:
    """Add the options of a training run."""
    group.add_argument(
        "--validate", action="store_true", help="print published runs beside the estimates, and stop"
    )
    group.add_argument("--train", type=Path, metavar="RECIPE", help="plan the run of a recipe of a backbone")
    group.add_argument("--gpus", metavar="COUNTxNAME", help="GPUs of the run, e.g. 8xH100 (the default)")
    group.add_argument("--batch", type=positive, metavar="N", help="clips of a step (default: the recipe's)")
    group.add_argument(
        "--shard",
        type=positive,
        metavar="N",
        help="GPUs that weights and optimizer are divided over (default: those of a node)",
    )
    group.add_argument(
        "--sequence", type=positive, metavar="N", help="GPUs that a clip is divided over (default: 1)"
    )
    group.add_argument(
        "--activation-checkpointing",
        action="store_true",
        help="recompute activations: a third more time, less memory",
    )
    group.add_argument("--price", type=float, metavar="USD", help="price of a GPU hour (default: assumed)")


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema plan`: 1 if an estimate of --validate is outside its limit."""
    from kinema.cli.plan_report import print_plan
    from kinema.cli.plan_training import print_training_plan, print_validation

    for name, (low, high) in LIMITS.items():
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise RequestError(
                f"--{name.replace('_', '-')}={value:g} is out of range: use {low:g} to {high:g}"
            )
    if arguments.validate:
        return 0 if print_validation() else 1

    _check_options(arguments)
    if arguments.train is not None:
        arguments.gpus = arguments.gpus or "8xH100"
        print_training_plan(arguments)
        return 0
    arguments.model = arguments.model or MODEL
    arguments.device_memory = arguments.device_memory or MEMORY_GIB
    arguments.tflops = arguments.tflops or TFLOPS
    print_plan(arguments)
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Raise `RequestError` for an option of the other kind of plan."""
    names = TRAINING_ONLY if arguments.train is None else VIDEO_ONLY
    for name in names:
        if getattr(arguments, name):
            where = "needs --train RECIPE" if arguments.train is None else "does not apply to --train"
            raise RequestError(f"--{name.replace('_', '-')} {where}")
