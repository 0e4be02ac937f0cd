"""How much each word matters to a DiT: its error with the true caption against that with a caption wrong in one slot, at several times.

    python bench/word_gaps.py [MODEL] [--clips 64]

Prints a table in Markdown for clips that training has not seen: the share of clips whose error is smaller with the true caption, and by
how much the wrong caption is worse. It sees a word being learnt long before the videos show it.
"""

import argparse

import torch
from trial import TIMES, Denoiser, encoded, foils, header, row

from kinema.checkpoints.folders import load_manifest, load_vae, resolve_model
from kinema.data.seeds import torch_rng
from kinema.data.world_clips import draw_clips
from kinema.evaluation import stage_of
from kinema.worlds.stage.world import StageWorld

SLOTS = ("direction", "noun", "verb", "sky")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="shipped")
    parser.add_argument("--clips", type=int, default=64)
    arguments = parser.parse_args()
    folder = resolve_model(arguments.model)
    denoiser, manifest = Denoiser.load(arguments.model), load_manifest(folder)
    world, (height, width) = StageWorld(stage_of(manifest)), manifest.default_size
    frames = manifest.default_frames
    clips = draw_clips(
        world, "word-gaps", range(arguments.clips), height=height, width=width, num_frames=frames
    )
    x0 = encoded(load_vae(folder), clips)
    noise = torch.randn(x0.shape, generator=torch_rng("word-gaps"))
    print(header("slot", "clips", *(f"t = {t:.2f}" for t in TIMES)))
    for slot in SLOTS:
        wrong = foils(world, clips, slot)
        if not wrong:
            continue
        at, cells = list(wrong), []
        captions = [clips[i].captions["medium"] for i in at], list(wrong.values())
        for t in TIMES:
            true_error, wrong_error = (denoiser.errors(x0[at], noise[at], t, texts) for texts in captions)
            cells.append(
                f"{(true_error < wrong_error).float().mean():.0%}, {(wrong_error / true_error - 1).mean():.1%}"
            )
        print(row(slot, len(at), *cells), flush=True)


if __name__ == "__main__":
    main()
