"""Accuracy of the captioner on new world clips, by slot: noun, verb, direction, ground and sky.

    python bench/captions.py                          # the captioner of the package, 200 clips
    python bench/captions.py --model runs/captioner/export --clips 40 --split train

Prints a Markdown table. Slots are parsed from the caption's words by `kinema.worlds.stage.parse`. The column
"oracle" is the accuracy of the frozen encoder on the same clips, an upper bound for a captioner on top of it.
"""

import argparse
from pathlib import Path

import torch

from kinema.checkpoints.captioner import CaptionerRunner
from kinema.checkpoints.manifest import load_card
from kinema.checkpoints.shipped import SHIPPED, shipped_captioner
from kinema.data.world_clips import draw_clips
from kinema.evaluation.alignment import ALL_SLOTS
from kinema.evaluation.captions import caption_accuracies
from kinema.models.captioner import ClipFeatures, clip_features
from kinema.worlds import ReadsCaptions, WorldConfig, make_world, with_world_table
from kinema.worlds.stage.parse import CAPTION_SLOTS, NAMED_DIRECTIONS

FORMS = ("medium", "detailed", "medium_zh", "detailed_zh")
SHOWN = {"height": 128, "width": 128, "num_frames": 17, "fps": 8.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=SHIPPED)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--split", choices=("held_out", "train", "all"), default="held_out")
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    runner = CaptionerRunner.load(arguments.model)
    card = load_card(shipped_captioner() if arguments.model == SHIPPED else Path(arguments.model))
    trained = WorldConfig.from_table(with_world_table(card["recipe"])["world"])
    world = make_world(trained).in_split(arguments.split)
    assert isinstance(world, ReadsCaptions)
    clips = draw_clips(world, f"captions-{arguments.split}", range(arguments.clips), **SHOWN)
    truths = [clip.truth for clip in clips]
    most = runner.captioner.config.num_frames
    seen = [clip_features(runner.oracle, clip.frames, clip.fps, max_frames=most) for clip in clips]
    together = ClipFeatures(torch.cat([one.frames for one in seen]), torch.cat([one.wholes for one in seen]))
    readings = runner.oracle.read([clip.frames for clip in clips], SHOWN["fps"])
    read = [
        [r.answers[s] == str(t[s]) for s in CAPTION_SLOTS if s != "direction" or t[s] in NAMED_DIRECTIONS]
        for r, t in zip(readings, truths)
    ]
    columns = {"oracle": {ALL_SLOTS: sum(map(all, read)) / len(read)}}
    generator = torch.Generator().manual_seed(0)
    for form in FORMS:
        written = runner.captioner.write(
            together, [form] * len(clips), temperature=arguments.temperature, generator=generator
        )
        columns[form] = caption_accuracies(world, [one.text for one in written], truths)
        least = min(written, key=lambda one: one.confidence)
        print(
            f"{form}: {written[0].text}\n  least confident ({least.confidence:.2f}): {least.text}", flush=True
        )
    print(
        f"\n| {arguments.clips} clips, {arguments.split} | {' | '.join(columns)} |\n"
        f"|---|{'---|' * len(columns)}"
    )
    for slot in (*CAPTION_SLOTS, ALL_SLOTS):
        print(
            f"| {slot} | "
            f"{' | '.join(f'{shares[slot]:.1%}' if slot in shares else '' for shares in columns.values())} |"
        )


if __name__ == "__main__":
    main()
