"""Check before loading whether a model of the Wan family and a request fit into the free memory."""

from pathlib import Path

import torch

from kinema.checkpoints.families.wan.files import find_wan_files
from kinema.checkpoints.families.wan.model import Offload, describe_wan
from kinema.device import Precision, free_memory_bytes, weight_dtype
from kinema.errors import RequestError
from kinema.generation.cost.estimate import ModelSizes, Workload, alternatives, estimate, format_bytes
from kinema.generation.plan import make_plan
from kinema.generation.request import Request


def check_memory(
    path: Path,
    request: Request,
    device: torch.device,
    precision: Precision = "auto",
    offload: Offload = "text",
) -> None:
    """Raise `RequestError` if the model at `path` and `request` need more memory than is free on `device`.

    The message states the memory needed, the free memory and what would fit. No weights are read. Nothing is
    checked if the free memory is unknown. Raises `ModelError` for an incomplete model.
    """
    free = free_memory_bytes(device)
    if free is None:
        return
    files = find_wan_files(path)
    variant, manifest = describe_wan(files, name=path.name)
    plan = make_plan(request, manifest, temporal_factor=files.vae.config.temporal_factor)
    sizes, num_latents = ModelSizes.of(files, variant), len(plan.layout.is_free)
    workload = Workload(
        plan.canvas_width,
        plan.canvas_height,
        1 + plan.temporal_factor * (num_latents - 1),
        plan.steps,
        window=num_latents if request.loop else plan.window,
        guided=plan.guidance != 1,
        bytes_per_weight=weight_dtype(device, precision).itemsize,
        offload=offload,
    )
    needed = estimate(sizes, workload)
    if needed.peak_bytes <= free:
        return
    phase = max(needed.phases, key=lambda phase: phase.peak_bytes)
    fits = alternatives(sizes, workload, free)
    raise RequestError(
        f"{path} needs {format_bytes(phase.peak_bytes)} of memory for {plan.text} (most in the phase "
        f"'{phase.name}'), and {format_bytes(free)} are free on {device}: "
        f"{', or '.join(fits) if fits else 'take a smaller model or a larger device'}; "
        "--beyond-memory tries it regardless"
    )
