"""Says what a video will take before anything is loaded: tokens, operations, memory of every stage, time, and what to change."""

import argparse
from pathlib import Path

from kinema.cli.arguments import size

MEMORY_GIB = 24.0
TFLOPS = 165.0  # dense bfloat16 of an RTX 4090 (NVIDIA's Ada whitepaper, with float32 accumulation)


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    length.add_argument("--seconds", type=float, metavar="S", help="length as a duration")
    length.add_argument("--frames", type=int, metavar="N", help="length as a number of frames")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (default: the model's)")
    parser.add_argument("--no-guidance", action="store_true", help="one forward pass a step and not two")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="of the matrices (default: bf16)"
    )
    parser.add_argument(
        "--offload",
        choices=("none", "text", "layers"),
        default="text",
        help="as with generate (default: text)",
    )
    parser.add_argument(
        "--device-memory",
        type=float,
        default=MEMORY_GIB,
        metavar="GIB",
        help=f"of the device (default: {MEMORY_GIB:g})",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=TFLOPS,
        metavar="N",
        help=f"most TFLOP/s of the device (default: {TFLOPS:g})",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        metavar="U",
        help="share of them that is reached (default: 0.4)",
    )
    parser.add_argument("--compare", default="", metavar="NAMES", help="image models beside it: sd,sdxl")


def run(arguments: argparse.Namespace) -> int:
    from kinema.checkpoints.families.wan.model import VARIANTS
    from kinema.errors import RequestError
    from kinema.generation.cost.estimate import (
        Workload,
        alternatives,
        compare_with_images,
        estimate,
        format_bytes,
    )

    for name, least in (
        ("seconds", 0.01),
        ("frames", 1),
        ("steps", 1),
        ("device_memory", 0.1),
        ("tflops", 1e-3),
        ("utilisation", 1e-3),
    ):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= (1 if name == "utilisation" else 1e6):
            raise RequestError(
                f"--{name.replace('_', '-')} {value:g} makes no sense: use {least:g} or more{', at most 1' * (name == 'utilisation')}"
            )
    sizes = _sizes(arguments.model)
    variant = VARIANTS[sizes.variant]
    height, width = variant.size if arguments.size is None else arguments.size[::-1]
    pace = sizes.vae.temporal_factor
    frames = arguments.frames or (
        variant.frames
        if arguments.seconds is None
        else 1 + pace * round(arguments.seconds * variant.fps / pace)
    )
    workload = Workload(
        width,
        height,
        frames,
        arguments.steps or variant.steps,
        window=1 + (variant.frames - 1) // pace,
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
        f"{plan.tokens} tokens of {plan.grid[0]}x{plan.grid[1]}x{plan.grid[2]} latents, {plan.num_forwards} forward passes"
    )
    print(f"{'stage':<14}{'TFLOP':>12}{'weights GiB':>13}{'computed GiB':>14}{'peak GiB':>10}{'seconds':>10}")
    for phase in plan.phases:
        sizes_gib = [
            size / 2**30 for size in (phase.weights_bytes, phase.activations_bytes, phase.peak_bytes)
        ]
        columns = "".join(f"{size:>{width}.2f}" for size, width in zip(sizes_gib, (13, 14, 10)))
        print(f"{phase.name:<14}{phase.flops / 1e12:>12.1f}{columns}{phase.flops / speed:>10.1f}")
    seconds = plan.flops / speed
    print(
        f"in all {plan.flops / 1e15:.2f} PFLOP, {seconds:.0f} s at {100 * arguments.utilisation:g} % of {arguments.tflops:g} TFLOP/s"
    )
    memory = arguments.device_memory * 2**30
    if plan.peak_bytes <= memory:
        print(f"fits in {arguments.device_memory:g} GiB with --offload {workload.offload}")
    else:
        fits = alternatives(sizes, workload, memory)
        phase = max(plan.phases, key=lambda phase: phase.peak_bytes)
        print(
            f"does not fit in {arguments.device_memory:g} GiB, '{phase.name}' needs {format_bytes(phase.peak_bytes)}:",
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
    from kinema.registry import lookup

    if model in PUBLISHED_MODELS or not is_wan(Path(model)):
        return lookup(PUBLISHED_MODELS, model, kind="model to plan for")
    files = find_wan_files(Path(model))
    variant, _ = describe_wan(files, name=model)
    return ModelSizes.of(files, variant)
