"""Check before loading whether a model and a request fit into the free memory."""

from pathlib import Path

import torch

from kinema.checkpoints.families import find_family
from kinema.checkpoints.families.base import Offload
from kinema.device import Precision, free_memory_bytes, weight_dtype
from kinema.errors import RequestError
from kinema.generation.cost.estimate import Workload, alternatives, estimate, format_bytes
from kinema.generation.plan import make_plan
from kinema.generation.request import Request


def check_memory(
    model: str | Path,
    request: Request,
    device: torch.device,
    precision: Precision = "auto",
    offload: Offload | None = None,
) -> None:
    """Raise `RequestError` if `model` and `request` need more memory than is free on `device`.

    The message states the memory needed, the free memory and what would fit. No weights are read. Nothing is
    checked if the free memory is unknown, or the family has no large models. Raises `ModelError` for an
    incomplete model, and `ConfigError` for an `offload` that its family does not have.
    """
    family, path = find_family(model)
    free = free_memory_bytes(device)
    if free is None or not family.checks_memory:
        return
    sizes = family.inspect(path).sizes
    plan = make_plan(request, sizes.manifest, temporal_factor=sizes.vae.temporal_factor)
    num_latents = len(plan.layout.is_free)
    workload = Workload(
        plan.canvas_width,
        plan.canvas_height,
        1 + plan.temporal_factor * (num_latents - 1),
        plan.steps,
        window=num_latents if request.loop else plan.window,
        guided=plan.guidance != 1,
        bytes_per_weight=weight_dtype(device, precision).itemsize,
        offload=family.offload(offload, path),
    )
    needed = estimate(sizes, workload)
    if needed.peak_bytes <= free:
        return
    phase = max(needed.phases, key=lambda phase: phase.peak_bytes)
    fits = alternatives(sizes, workload, free, family.offloads)
    raise RequestError(
        f"{path} needs {format_bytes(phase.peak_bytes)} of memory for {plan.text} (most in the phase "
        f"'{phase.name}'), and {format_bytes(free)} are free on {device}: "
        f"{', or '.join(fits) if fits else 'take a smaller model or a larger device'}; "
        "--beyond-memory tries it regardless"
    )
