"""Fine-tuning the shipped model on 50 clips of one's own: what it learns, what it forgets, how long it takes.

    python bench/own_clips.py [--clips 50] [--steps 60] [--out runs/own]
    python bench/own_clips.py --beside 50          # with as many clips of what the model knows, so that it forgets less

The clips show a yellow car, which the model has never seen: its cars are red, and its yellow things are stars. They are .mp4 files with a
caption beside each, which go through `kinema data build` and `kinema train recipes/dit_finetune.toml`, called as a user calls them.

Prints a table in Markdown: the training loss (velocity, mean over times that stand for its law) of both models on clips that neither has
seen, of yellow cars, of the red ones and of all nouns of the shipped model, and the share of yellow cars whose error is smaller when they
are called yellow than when they are called red. Writes a picture of what both make of the same prompts and seeds.
"""

import argparse
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from trial import Denoiser, encoded, header, row

from kinema.checkpoints.folders import load_manifest, load_vae
from kinema.checkpoints.shipped import shipped_model
from kinema.cli.main import main as kinema
from kinema.data.seeds import torch_rng
from kinema.data.world_clips import draw_clips
from kinema.diffusion.objectives import draw_times
from kinema.evaluation import stage_of
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.video import Video, contact_sheet, save_image
from kinema.worlds import Clip, StageConfig, StageWorld
from kinema.worlds.stage.nouns import NOUNS

RECIPE = Path(__file__).parents[1] / "recipes" / "dit_finetune.toml"
SPRITE, NAME, OLD_NAME = "taxi", "yellow car", "red car"
PROMPTS = (
    "a yellow car drives to the left on a snowy plain under a blue sky",
    "a yellow car drives to the right on a wooden floor at night",
    "a red car drives to the left on a grassy field at sunset",
    "a penguin walks to the right on a sandy desert under a blue sky",
)
SIZE = {"height": 128, "width": 128, "num_frames": 17}
NUM_TIMES = 6


def called(clip: Clip, name: str) -> str:
    """The medium caption of a clip of the sprite, under another name."""
    return re.sub(rf"\b({'|'.join(NOUNS[SPRITE].words)})\b", name, clip.captions["medium"])


def write_films(folder: Path, name: str, clips: list[Clip]) -> None:
    """A film of every clip, with its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        Video(clip.frames, clip.fps).save(folder / f"{name}-{index:03d}.mp4")
        (folder / f"{name}-{index:03d}.txt").write_text(called(clip, NAME))


def fine_tune(films: Path, out: Path, steps: int, settings: list[str]) -> float:
    """`out`/run/export, made by the two commands of docs/data.md; the processor minutes of the second."""
    if kinema(["data", "build", str(films), "-o", str(out / "dataset")]):
        raise SystemExit("the data set could not be built")
    begun = time.process_time()
    words = [
        "--data",
        str(out / "dataset"),
        "--init-from",
        "shipped",
        "--out",
        str(out / "run"),
        "--steps",
        str(steps),
    ]
    if kinema(["train", str(RECIPE), *words, *(word for setting in settings for word in ("--set", setting))]):
        raise SystemExit("the model could not be trained")
    return (time.process_time() - begun) / 60


def losses(denoiser: Denoiser, x0: Tensor, captions: list[str], times: Tensor) -> Tensor:
    """The training loss of each clip."""
    noise = torch.randn(x0.shape, generator=torch_rng("own-noise"))
    return torch.stack([denoiser.errors(x0, noise, t, captions) for t in times]).mean(0)


def show(folders: Mapping[str, Path], path: Path) -> None:
    """A picture of what the models make of `PROMPTS`, side by side."""
    models = [load(folder, device="cpu") for folder in folders.values()]
    videos = [
        model.run(Request(prompt, seed=seed)).video for seed, prompt in enumerate(PROMPTS) for model in models
    ]
    texts = [f"{when}: {prompt}" for prompt in PROMPTS for when in folders]
    save_image(path, contact_sheet(videos, texts, columns=2, frames_per_video=4))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument(
        "--beside", type=int, default=0, help="clips of what the shipped model knows, in the same folder"
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--held-out", type=int, default=48, help="clips of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/own"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    shipped = shipped_model()
    stage = stage_of(load_manifest(shipped))
    common = {"verbs": stage.verbs, "max_objects": 1, "cameras": stage.cameras}
    own, cars, all_nouns = (
        StageWorld(StageConfig(nouns=(SPRITE,), **common)),
        StageWorld(StageConfig(nouns=("car",), **common)),
        StageWorld(stage),
    )

    write_films(arguments.out / "films", "own", draw_clips(own, "own", range(arguments.clips), **SIZE))
    write_films(
        arguments.out / "films",
        "beside",
        draw_clips(all_nouns, "own-beside", range(arguments.beside), **SIZE),
    )
    minutes = fine_tune(arguments.out / "films", arguments.out, arguments.steps, arguments.set)

    vae = load_vae(shipped)
    worlds = {f"{NAME}s": own, f"{OLD_NAME}s": cars, f"the {len(stage.noun_names)} nouns": all_nouns}
    clips = {
        name: draw_clips(world, "own-held-out", range(arguments.held_out), **SIZE)
        for name, world in worlds.items()
    }
    captions = {
        name: [called(clip, NAME) if world is own else clip.captions["medium"] for clip in clips[name]]
        for name, world in worlds.items()
    }
    x0 = {name: encoded(vae, shown) for name, shown in clips.items()}
    law = draw_times(4096, torch_rng("own-times"), law="logit_normal", shift=load_manifest(shipped).shift)
    times = law.quantile((torch.arange(NUM_TIMES) + 0.5) / NUM_TIMES)
    folders = {"before": shipped, "after": arguments.out / "run" / "export"}
    found = {}
    for when, folder in folders.items():
        denoiser = Denoiser.load(folder)
        found[when] = {name: losses(denoiser, x0[name], captions[name], times) for name in worlds}
        found[when]["wrong"] = losses(
            denoiser, x0[f"{NAME}s"], [called(clip, OLD_NAME) for clip in clips[f"{NAME}s"]], times
        )
    print(
        header(
            f"{arguments.clips} clips, {arguments.steps} steps, {minutes:.1f} minutes",
            "before",
            "after",
            "change",
        )
    )
    for name in worlds:
        before, after = (found[when][name].mean().item() for when in folders)
        print(row(f"loss, {name}", f"{before:.4f}", f"{after:.4f}", f"{after / before - 1:+.1%}"))
    named = [(found[when][f"{NAME}s"] < found[when]["wrong"]).float().mean() for when in folders]
    print(row(f"{NAME}s better called yellow than red", *(f"{share:.0%}" for share in named), ""))

    show(folders, arguments.out / "own_clips.jpg")


if __name__ == "__main__":
    main()
