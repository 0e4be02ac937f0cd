"""Whether a model of the Wan family and a request fit into the memory that is free, said before anything is loaded."""

from pathlib import Path

import torch

from kinema.checkpoints.families.wan.files import find
from kinema.checkpoints.families.wan.model import Offload, describe
from kinema.device import Precision, free_memory_bytes
from kinema.errors import RequestError
from kinema.generation.cost.estimate import Canvas, Sizes, alternatives, estimate, gib
from kinema.generation.request import Request, make_plan
from kinema.generation.wan import dtype_for


def check_memory(
    path: Path,
    request: Request,
    device: torch.device,
    precision: Precision = "auto",
    offload: Offload = "text",
) -> None:
    """Raise `RequestError` when loading the model at `path` and fulfilling `request` needs more memory than is free on `device`.

    It says what is needed, what there is and what would fit. No weights are read. Where the free memory is not known nothing is said.
    """
    free = free_memory_bytes(device)
    if free is None:
        return
    files = find(path)
    variant, manifest = describe(files, name=path.name)
    plan = make_plan(request, manifest, temporal_factor=files.vae.config.temporal_factor)
    sizes, num_latents = Sizes.of(files, variant), len(plan.layout.is_free)
    canvas = Canvas(
        plan.canvas_width,
        plan.canvas_height,
        1 + plan.temporal_factor * (num_latents - 1),
        plan.steps,
        window=num_latents if request.loop else plan.window,
        guided=plan.guidance != 1,
        bytes_each=dtype_for(device, precision).itemsize,
        offload=offload,
    )
    needed = estimate(sizes, canvas)
    if needed.peak_bytes <= free:
        return
    stage = max(needed.stages, key=lambda stage: stage.peak_bytes)
    fits = alternatives(sizes, canvas, free)
    raise RequestError(
        f"{path} needs {gib(stage.peak_bytes)} of memory for {plan.text} (most at the stage '{stage.name}'), and {gib(free)} are free on "
        f"{device}: {', or '.join(fits) if fits else 'take a smaller model or a larger device'}; --beyond-memory tries it regardless"
    )
