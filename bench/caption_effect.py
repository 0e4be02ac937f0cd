"""What captions are worth (Betker et al. 2023): one small DiT, one budget and the same clips, with captions of three kinds.

    python bench/caption_effect.py [--minutes 3] [--clips 1000] [--out runs/captions]

- **original**: as the web has them, made of the world's truth by `WEB`: they say the noun and nothing else, are missing, or another clip's.
- **short**: written by the captioner of the package in its short form, mixed with original ones as `kinema data build` does (95 %).
- **full**: the same in the forms that `kinema data build` asks for by default (short, medium and detailed), mixed likewise.

Prints two tables in Markdown. Error gaps: the share of held-out clips whose error is smaller with the true caption than with one that is
wrong in one slot, over three times together, and by how much the wrong one is worse; a share of 50 % is chance. Samples: the share of
generated clips whose slot the oracle reads as the caption says it. Both with the medium and with the detailed caption of the clip, since a
model is at its best with captions like its own.
"""

import argparse
import dataclasses
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from trial import (
    TIMES,
    Denoiser,
    LatentsPart,
    encoded,
    foils,
    followed,
    header,
    part_of,
    row,
    seconds_per_step,
    trained,
)

from kinema.checkpoints.folders import load_oracle
from kinema.data.curation.captioner_runner import Describer
from kinema.data.curation.captioning import chosen, fault
from kinema.data.curation.recipe import Captioning
from kinema.data.latents import Latents
from kinema.data.seeds import derive_seed, torch_rng
from kinema.data.world_clips import draw_clips
from kinema.evaluation.trust import scored_slots
from kinema.generation.loading import load
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.captioner import Seen, look
from kinema.worlds import Clip, StageWorld
from kinema.worlds.stage import grammar

WEB = {"noun": 0.35, "nothing": 0.2, "short": 0.2, "another clip's": 0.15, "place": 0.1}
"""What the original captions are, and how often."""
KINDS: dict[str, tuple[str, ...]] = {"original": (), "short": ("short",), "full": grammar.FORMS}
"""The forms in which a model writes the captions of each kind."""
FORMS = ("medium", "detailed")
SLOTS = ("sky", "ground", "noun", "verb", "direction", "size")


def original(clip: Clip, another: Clip) -> dict[str, str]:
    """The caption of a clip as the web has it: {} where it has none."""
    rng = random.Random(clip.truth["seed"])
    (kind,) = rng.choices(list(WEB), list(WEB.values()))
    texts = {
        "noun": grammar.article(clip.truth["noun"]),
        "short": clip.captions["short"],
        "another clip's": another.captions["short"],
        "place": rng.choice(grammar.SKY_WORDS[clip.truth["sky"]]),
    }
    return {"caption": texts[kind]} if kind in texts else {}


def written(describer: Describer, clips: Sequence[Clip], config: Captioning) -> list[dict[str, str]]:
    """What the captioner says of each clip by form, without what `kinema data build` would refuse for its words."""
    looks = [
        look(describer.oracle, clip.frames, clip.fps, most=describer.captioner.config.num_frames)
        for clip in clips
    ]
    seen = Seen(torch.cat([one.frames for one in looks]), torch.cat([one.wholes for one in looks]))
    generator = torch.Generator().manual_seed(derive_seed(config.seed, clips[0].truth["seed"]))
    found: list[dict[str, str]] = [{} for _ in clips]
    for form in grammar.FORMS:
        said = describer.captioner.write(
            seen, [form] * len(clips), temperature=config.temperature, generator=generator
        )
        for texts, one in zip(found, said):
            if not fault({**dataclasses.asdict(one), "agreement": None}, config):
                texts[form] = one.text
    return found


def in_all_forms(texts: Mapping[str, str]) -> dict[str, str]:
    """The captions as training draws them; a form that is not there is another one."""
    return {form: texts.get(form, next(iter(texts.values()), "")) for form in grammar.FORMS}


def captions_of(
    kind: str, clips: Sequence[Clip], said: Sequence[dict[str, str]], config: Captioning
) -> list[dict[str, str]]:
    """The captions of one kind for training."""
    found = []
    for index, clip in enumerate(clips):
        own = {form: text for form, text in said[index].items() if form in KINDS[kind]}
        found.append(in_all_forms(chosen(original(clip, clips[index - 1]), own, str(index), config)))
    return found


def gaps(denoiser: Denoiser, world: StageWorld, clips: Sequence[Clip], x0: Tensor, form: str) -> list[str]:
    """For every slot the share of clips whose error is smaller with the true caption, and by how much the wrong one is worse."""
    noise = torch.randn(x0.shape, generator=torch_rng("caption-effect-noise"))
    cells = []
    for slot in SLOTS:
        wrong = foils(world, clips, slot, form)
        at = list(wrong)
        texts = [clips[i].captions[form] for i in at], list(wrong.values())
        true_error, wrong_error = (
            sum(denoiser.errors(x0[at], noise[at], t, said) for t in TIMES) for said in texts
        )
        cells.append(
            f"{(true_error < wrong_error).float().mean():.0%}, {wrong_error.mean() / true_error.mean() - 1:.1%}"
        )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="processor minutes of each training")
    parser.add_argument("--steps", type=int, help="in place of the minutes")
    parser.add_argument("--clips", type=int, default=1000, help="to train on")
    parser.add_argument("--held-out", type=int, default=128, help="clips for the error gaps")
    parser.add_argument(
        "--prompts",
        type=int,
        default=32,
        help="clips that are generated with each model and form; 0 for none",
    )
    parser.add_argument("--side", type=int, default=96, help="pixels")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--width", type=int, default=128, help="channels of the DiT")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("runs/captions"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    side, config = arguments.side, Captioning(writer="model")
    settings = [
        "stage.nouns=8",
        f"data.shapes=[{{height={side}, width={side}}}]",
        f"model={{d={arguments.width}, num_layers=6, num_heads=4, ffn_dim={4 * arguments.width}, patch=[1, 2, 2]}}",
        f"data.num_frames={arguments.frames}",
        f"stages=[{{until=0.2, batch=192, latent_frames=1}}, {{until=1.0, batch=64, latent_frames={1 + (arguments.frames - 1) // 4}}}]",
        "captions.chinese=0.0",
        "run.ema_decay=0.99",
    ]
    first = part_of(settings, {}, 100)
    shown = {"height": side, "width": side, "num_frames": arguments.frames}
    clips = draw_clips(first.world, "caption-effect", range(arguments.clips), **shown)
    latents, describer = encoded(first.vae, clips).half(), Describer.load()
    said = [
        texts
        for first_of in range(0, len(clips), 32)
        for texts in written(describer, clips[first_of : first_of + 32], config)
    ]

    def part(kind: str, steps: int) -> LatentsPart:
        captions = captions_of(kind, clips, said, config)
        return part_of(
            settings,
            {("images", 0): Latents(latents[:, :, :1], captions), ("clips", 0): Latents(latents, captions)},
            steps,
        )

    for kind in arguments.kinds:
        logging.info(
            "%s:\n  %s", kind, "\n  ".join(str(texts) for texts in captions_of(kind, clips, said, config)[:6])
        )
    held_out = draw_clips(
        first.world, "caption-effect-held-out", range(max(arguments.held_out, arguments.prompts)), **shown
    )
    x0 = encoded(first.vae, held_out[: arguments.held_out])
    steps = arguments.steps or round(
        arguments.minutes * 60 / seconds_per_step(part(arguments.kinds[-1], 100))
    )
    oracle, slots = load_oracle(), scored_slots(first.recipe.stage)
    found, read = [], []
    for kind in arguments.kinds:
        minutes = trained(part(kind, steps), arguments.out / kind)
        denoiser, pipeline = (
            read_model(arguments.out / kind / "export") for read_model in (Denoiser.load, load)
        )
        for form in FORMS:
            found.append(
                row(kind, f"{minutes:.1f}", form, *gaps(denoiser, first.world, held_out[: len(x0)], x0, form))
            )
            logging.info("%s", found[-1])
            if arguments.prompts:

                def make(index: int, clip: Clip, model: Pipeline = pipeline, form: str = form) -> np.ndarray:
                    return model.run(Request(clip.captions[form], seed=index)).video.frames

                shares = followed(held_out[: arguments.prompts], make, oracle, slots, first.recipe.data.fps)
                read.append(row(kind, form, *(f"{shares[slot]:.0%}" for slot in (*SLOTS, "all"))))
                logging.info("%s", read[-1])
    print(header(f"error gaps, {steps} steps", "minutes", "asked with", *SLOTS), *found, sep="\n")
    if arguments.prompts:
        print(header("samples", "asked with", *SLOTS, "all"), *read, sep="\n", flush=True)


if __name__ == "__main__":
    main()
