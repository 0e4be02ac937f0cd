"""How much each word matters to a DiT: its error with the true caption against that with a caption wrong in one slot, at several times.

    python bench/word_gaps.py [MODEL] [--clips 64]

Prints a table in Markdown for clips that training has not seen: the share of clips whose error is smaller with the true caption, and by
how much the wrong caption is worse. It sees a word being learnt long before the videos show it.
"""

import argparse
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kinema.data.render import draw_clips, to_tensor
from kinema.data.steps import torch_rng
from kinema.diffusion.objective import Prediction, add_noise, target
from kinema.evaluate import stage_of
from kinema.generate.loading import load
from kinema.generate.pipeline import Pipeline
from kinema.models.dit import apply_to_grid
from kinema.models.known import encode_known
from kinema.worlds.stage import StageWorld

TIMES = (0.95, 0.85, 0.7)
SLOTS = ("direction", "noun", "verb", "sky")
TRIES = 40
"""Foils drawn of a clip: enough that every slot that it has is among them."""


def errors(pipeline: Pipeline, x0: Tensor, noise: Tensor, time: float, captions: Sequence[str]) -> Tensor:
    """Mean squared error of each clip's prediction at one time."""
    t = torch.tensor(time)
    xt = add_noise(x0, noise, t, pipeline.schedule)
    wanted = target(cast(Prediction, pipeline.manifest.prediction), x0, noise, t, pipeline.schedule)
    output = apply_to_grid(pipeline.dit, xt, t.expand(len(x0)), pipeline.clip.encode_prompts(captions))
    return (output - wanted).square().mean(dim=(1, 2, 3, 4))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="shipped")
    parser.add_argument("--clips", type=int, default=64)
    arguments = parser.parse_args()
    pipeline = load(arguments.model, device="cpu")
    world, (height, width) = StageWorld(stage_of(pipeline.manifest)), pipeline.manifest.default_size
    frames = pipeline.manifest.default_frames
    clips = draw_clips(world, "word-gaps", range(arguments.clips), height=height, width=width, num_frames=frames)
    x0 = torch.cat([encode_known(pipeline.vae, to_tensor(clips[i : i + 8]), starts_canvas=True) for i in range(0, len(clips), 8)])
    noise = torch.randn(x0.shape, generator=torch_rng("word-gaps"))
    print(f"| slot | clips | {' | '.join(f't = {time}' for time in TIMES)} |\n|---|---|{'---|' * len(TIMES)}")
    for slot in SLOTS:
        foils = [next((text for seed in range(TRIES) for text, wrong in [world.foil(clip, seed)] if wrong == slot), None) for clip in clips]
        chosen = [i for i, foil in enumerate(foils) if foil is not None]
        if not chosen:
            continue
        cells = []
        for time in TIMES:
            captions = [clips[i].captions["medium"] for i in chosen], [foil for foil in foils if foil is not None]
            true, wrong = (errors(pipeline, x0[chosen], noise[chosen], time, texts) for texts in captions)
            cells.append(f"{(true < wrong).float().mean():.0%}, {(wrong / true - 1).mean():.1%}")
        print(f"| {slot} | {len(chosen)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
