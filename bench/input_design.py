"""How to design the input: clips cropped to a square or in their own shapes, patches of (1, 2, 2) or (2, 2, 2), at equal compute.

    python bench/input_design.py [--minutes 2] [--clips 900] [--out runs/input]

Four small DiTs see the same scenes, captions and processor seconds. Scenes are square, wide and tall; cropping keeps the middle square of a
wide or tall one, shown so large that it has as many pixels as the square ones. Clips have 13 frames, that is 4 latent frames, the first of
which is one frame and the others four each: the first patch of (2, 2, 2) then holds the first picture and the four frames after it. Such a
model can be given no first picture alone, no picture can be trained on, and no pipeline takes it; all are trained from text alone here, so
that this decides nothing.

Prints a table in Markdown. The loss is that of training (velocity, mean over ten times that stand for its law) on clips that it has not
seen: in their own shapes, one by one and together, and cropped.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from trial import Denoiser, encoded, header, part_of, row, seconds_per_step, trained

from kinema.data.latents import Latents
from kinema.data.seeds import torch_rng
from kinema.data.world_clips import draw_clips
from kinema.diffusion.objectives import draw_times
from kinema.models.vae import VAE
from kinema.worlds import Clip, StageWorld

SQUARE = 96
SHAPES = {"square": (SQUARE, SQUARE), "wide": (64, 128), "tall": (128, 64)}
SHARES = {"square": 0.4, "wide": 0.3, "tall": 0.3}
FRAMES, BATCH = 13, 64
PATCHES = ((1, 2, 2), (2, 2, 2))
NUM_TIMES = 10


def own_shapes(world: StageWorld, split: str, count: int) -> dict[str, list[Clip]]:
    """`count` clips of every shape."""
    sizes = {name: {"height": height, "width": width} for name, (height, width) in SHAPES.items()}
    return {
        name: draw_clips(world, f"{split}-{name}", range(count), num_frames=FRAMES, **size)
        for name, size in sizes.items()
    }


def cropped(world: StageWorld, split: str, counts: dict[str, int]) -> list[Clip]:
    """The scenes of `own_shapes`, each with its shorter side as long as a square's and cropped to the middle."""
    clips = []
    for name, (height, width) in SHAPES.items():
        scale = SQUARE / min(height, width)
        size = {"height": round(height * scale), "width": round(width * scale)}
        for clip in draw_clips(world, f"{split}-{name}", range(counts[name]), num_frames=FRAMES, **size):
            top, left = (size["height"] - SQUARE) // 2, (size["width"] - SQUARE) // 2
            clips.append(
                replace(
                    clip,
                    frames=np.ascontiguousarray(clip.frames[:, top : top + SQUARE, left : left + SQUARE]),
                )
            )
    return clips


def latents_of(vae: VAE, clips: Sequence[Clip]) -> Latents:
    """What a part trains on."""
    return Latents(encoded(vae, clips).half(), [clip.captions for clip in clips])


def loss_of(denoiser: Denoiser, x0: Tensor, captions: Sequence[str], times: Tensor) -> float:
    """The training loss of held-out clips of one shape."""
    noise = torch.randn(x0.shape, generator=torch_rng("input-noise"))
    return torch.stack([denoiser.errors(x0, noise, t, captions).mean() for t in times]).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="processor minutes of each training")
    parser.add_argument("--clips", type=int, default=900, help="to train on")
    parser.add_argument("--held-out", type=int, default=64, help="clips of each shape")
    parser.add_argument("--width", type=int, default=128, help="channels of the DiT")
    parser.add_argument("--out", type=Path, default=Path("runs/input"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    common = [
        "stage.nouns=8",
        f"data.num_frames={FRAMES}",
        f"stages=[{{until=1.0, batch={BATCH}, latent_frames={1 + (FRAMES - 1) // 4}}}]",
        "run.ema_decay=0.99",
    ]
    sizes = f"d={arguments.width}, num_layers=6, num_heads=4, ffn_dim={4 * arguments.width}"
    shapes = {
        "own shapes": ", ".join(
            f"{{height={h}, width={w}, share={SHARES[name]}}}" for name, (h, w) in SHAPES.items()
        ),
        "cropped": f"{{height={SQUARE}, width={SQUARE}}}",
    }
    first = part_of(common, {}, 1)
    world, vae = first.world, first.vae
    assert isinstance(world, StageWorld), "recipes/dit.toml trains on the stage"
    counts = {name: round(arguments.clips * share) for name, share in SHARES.items()}
    shown = {
        name: clips[: counts[name]]
        for name, clips in own_shapes(world, "input", max(counts.values())).items()
    }
    data = {
        "own shapes": {("clips", i): latents_of(vae, clips) for i, clips in enumerate(shown.values())},
        "cropped": {("clips", 0): latents_of(vae, cropped(world, "input", counts))},
    }
    unseen = own_shapes(world, "input-held-out", arguments.held_out)
    unseen["crops"] = cropped(
        world, "input-held-out", dict.fromkeys(SHAPES, arguments.held_out // len(SHAPES))
    )
    held_out = {
        name: (encoded(vae, clips), [clip.captions["medium"] for clip in clips])
        for name, clips in unseen.items()
    }
    config = first.recipe.diffusion
    law = draw_times(4096, torch_rng("input-times"), law=config.time_law, shift=config.time_shift)
    times = law.quantile((torch.arange(NUM_TIMES) + 0.5) / NUM_TIMES)

    names = (
        "input",
        "patch",
        "parameters",
        "tokens a clip",
        "clips a second",
        "steps",
        "minutes",
        *SHAPES,
        "own shapes",
        "crops",
    )
    print(header(*names), flush=True)
    for patch in PATCHES:
        for way in shapes:
            settings = [*common, f"model={{{sizes}, patch={list(patch)}}}", f"data.shapes=[{shapes[way]}]"]
            seconds = seconds_per_step(part_of(settings, data[way], 100))
            steps = round(arguments.minutes * 60 / seconds)
            part = part_of(settings, data[way], steps)
            tokens = [value.latents[0, 0].numel() // int(np.prod(patch)) for value in data[way].values()]
            out = arguments.out / f"{way}-{'x'.join(map(str, patch))}".replace(" ", "-")
            minutes = trained(part, out)
            denoiser = Denoiser.load(out / "export")
            losses = {
                name: loss_of(denoiser, x0, captions, times) for name, (x0, captions) in held_out.items()
            }
            own = float(np.mean([losses[name] for name in SHAPES]))
            size = f"{sum(weight.numel() for weight in part.model.parameters()) / 1e6:.2f} M"
            span = f"{min(tokens)} to {max(tokens)}" if min(tokens) < max(tokens) else tokens[0]
            speed = f"{BATCH * steps / (60 * minutes):.0f}"
            cells = (f"{loss:.4f}" for loss in (*(losses[name] for name in SHAPES), own, losses["crops"]))
            print(row(way, patch, size, span, speed, steps, f"{minutes:.1f}", *cells), flush=True)


if __name__ == "__main__":
    main()
