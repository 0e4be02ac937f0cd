"""Estimates what a video will take, without loading a model: tokens, operations, memory of every phase, and
time."""

import argparse
from pathlib import Path

from kinema.cli.arguments import size
from kinema.errors import RequestError
from kinema.registry import lookup
from kinema.terminal import table

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
        help="a published model by name, or a model folder or file",
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
        default="text",
        help="as for 'kinema generate' (default: text)",
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
    """Print the cost of a request, and of the models to compare with."""
    from kinema.checkpoints.families.wan.model import VARIANTS
    from kinema.generation.cost.estimate import (
        Workload,
        alternatives,
        compare_with_images,
        estimate,
        format_bytes,
    )

    for name, (low, high) in LIMITS.items():
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise RequestError(
                f"--{name.replace('_', '-')}={value:g} is out of range: use {low:g} to {high:g}"
            )

    sizes = _sizes(arguments.model)
    variant = VARIANTS[sizes.variant]
    height, width = variant.size if arguments.size is None else arguments.size[::-1]
    stride = sizes.vae.temporal_factor
    frames = arguments.frames or (
        variant.frames
        if arguments.seconds is None
        else 1 + stride * round(arguments.seconds * variant.fps / stride)
    )
    workload = Workload(
        width,
        height,
        frames,
        arguments.steps or variant.steps,
        window=1 + (variant.frames - 1) // stride,
        guided=not arguments.no_guidance,
        bytes_per_weight=2 if arguments.precision == "bf16" else 4,
        offload=arguments.offload,
    )
    plan = estimate(sizes, workload)
    speed = arguments.tflops * 1e12 * arguments.utilisation
    print(
        f"{width}x{height}, {plan.frames} frames at {variant.fps:g} fps ({plan.frames / variant.fps:.2f} s)"
    )
    print(
        f"{plan.tokens} tokens of {plan.grid[0]}x{plan.grid[1]}x{plan.grid[2]} latents, "
        f"{plan.num_forwards} forward passes"
    )
    rows = [
        [
            phase.name,
            f"{phase.flops / 1e12:.1f}",
            *(
                f"{size / 2**30:.2f}"
                for size in (phase.weights_bytes, phase.activations_bytes, phase.peak_bytes)
            ),
            f"{phase.flops / speed:.1f}",
        ]
        for phase in plan.phases
    ]
    header = ["phase", "TFLOP", "weights GiB", "computed GiB", "peak GiB", "seconds"]
    print(table(rows, header=header, align="lrrrrr"))
    seconds = plan.flops / speed
    print(
        f"in all {plan.flops / 1e15:.2f} PFLOP, {seconds:.0f} s at {100 * arguments.utilisation:g} % of "
        f"{arguments.tflops:g} TFLOP/s"
    )
    memory = arguments.device_memory * 2**30
    if plan.peak_bytes <= memory:
        print(f"fits in {arguments.device_memory:g} GiB with --offload {workload.offload}")
    else:
        fits = alternatives(sizes, workload, memory)
        phase = max(plan.phases, key=lambda phase: phase.peak_bytes)
        print(
            f"does not fit in {arguments.device_memory:g} GiB, '{phase.name}' needs "
            f"{format_bytes(phase.peak_bytes)}:",
            end=" ",
        )
        print(", or ".join(fits) if fits else "take a smaller model or a larger device")
    for line in compare_with_images(
        plan, [name.strip() for name in arguments.compare.split(",") if name.strip()]
    ):
        print(line)
    return 0


def _sizes(model: str):  # type: ignore[no-untyped-def]
    from kinema.checkpoints.families.wan.files import find_wan_files
    from kinema.checkpoints.families.wan.model import describe_wan, is_wan
    from kinema.generation.cost.estimate import PUBLISHED_MODELS, ModelSizes

    if model in PUBLISHED_MODELS or not is_wan(Path(model)):
        return lookup(PUBLISHED_MODELS, model, kind="model to plan for")
    files = find_wan_files(Path(model))
    variant, _ = describe_wan(files, name=model)
    return ModelSizes.of(files, variant)
