"""The report of `kinema plan`: the cost of a request, and what to change when it does not fit."""

import argparse
from pathlib import Path

from kinema.checkpoints.families import FAMILIES, find_family
from kinema.checkpoints.families.base import Family, ModelSizes
from kinema.checkpoints.shipped import SHIPPED
from kinema.errors import UnknownName
from kinema.generation.cost.estimate import (
    Estimate,
    Workload,
    alternatives,
    compare_with_images,
    estimate,
    format_bytes,
)
from kinema.registry import unknown
from kinema.terminal import table

HEADER = ("phase", "TFLOP", "weights GiB", "computed GiB", "peak GiB", "seconds")


def print_plan(arguments: argparse.Namespace) -> None:
    """Print the cost of the request, whether it fits in memory, and the image models to compare with."""
    family, sizes = model_sizes(arguments.model)
    workload = _workload(arguments, family, sizes)
    plan = estimate(sizes, workload)
    fps = sizes.manifest.fps
    print(
        f"{workload.width}x{workload.height}, {plan.frames} frames at {fps:g} fps ({plan.frames / fps:.2f} s)"
    )
    grid = "x".join(map(str, plan.grid))
    print(f"{plan.tokens} tokens of {grid} latents, {plan.num_forwards} forward passes")

    flops_per_second = arguments.tflops * 1e12 * arguments.utilisation
    print(table(_rows(plan, flops_per_second), header=HEADER, align="lrrrrr"))
    print(
        f"in all {plan.flops / 1e15:.2f} PFLOP, {plan.flops / flops_per_second:.0f} s at "
        f"{100 * arguments.utilisation:g} % of {arguments.tflops:g} TFLOP/s"
    )
    print(_memory_line(arguments.device_memory, family, sizes, workload, plan))

    others = [name.strip() for name in arguments.compare.split(",") if name.strip()]
    for line in compare_with_images(plan, others):
        print(line)


def model_sizes(model: str) -> tuple[Family, ModelSizes]:
    """The family and the sizes of a published model by name, or of a model folder or file."""
    published = {name: family for family in FAMILIES.values() for name in family.published}
    if model in published:
        return published[model], published[model].published[model]
    if model != SHIPPED and not Path(model).exists():
        raise UnknownName(unknown("model to plan for", model, [SHIPPED, *published]))
    family, path = find_family(model)
    return family, family.inspect(path).sizes


def _workload(arguments: argparse.Namespace, family: Family, sizes: ModelSizes) -> Workload:
    """The request with the defaults of the model."""
    manifest, stride = sizes.manifest, sizes.vae.temporal_factor
    height, width = manifest.default_size if arguments.size is None else arguments.size[::-1]
    frames = 1 + (manifest.default_frames - 1) // stride * stride
    if arguments.seconds is not None:
        frames = 1 + stride * round(arguments.seconds * manifest.fps / stride)
    return Workload(
        width,
        height,
        arguments.frames or frames,
        arguments.steps or manifest.steps,
        window=1 + (manifest.max_frames - 1) // stride,
        guided=not arguments.no_guidance,
        bytes_per_weight=2 if arguments.precision == "bf16" else 4,
        offload=family.offload(arguments.offload, Path(arguments.model)),
    )


def _rows(plan: Estimate, flops_per_second: float) -> list[list[str]]:
    """A row of the table for every phase."""
    rows = []
    for phase in plan.phases:
        sizes = (phase.weights_bytes, phase.activations_bytes, phase.peak_bytes)
        sizes_gib = [f"{size / 2**30:.2f}" for size in sizes]
        seconds = phase.flops / flops_per_second
        rows.append([phase.name, f"{phase.flops / 1e12:.1f}", *sizes_gib, f"{seconds:.1f}"])
    return rows


def _memory_line(
    memory_gib: float, family: Family, sizes: ModelSizes, workload: Workload, plan: Estimate
) -> str:
    """Whether the plan fits in the memory of the device, and what to change if not."""
    if plan.peak_bytes <= memory_gib * 2**30:
        return f"fits in {memory_gib:g} GiB with --offload {workload.offload}"

    fits = alternatives(sizes, workload, memory_gib * 2**30, family.offloads)
    phase = max(plan.phases, key=lambda phase: phase.peak_bytes)
    return (
        f"does not fit in {memory_gib:g} GiB, '{phase.name}' needs {format_bytes(phase.peak_bytes)}: "
        f"{', or '.join(fits) if fits else 'take a smaller model or a larger device'}"
    )
