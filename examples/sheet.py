"""A contact sheet of sixteen prompts, or of given ones, by the shipped model. Seeds are 0, 1, 2, ...

    python examples/sheet.py --out docs/images/sheet.png [--model DIR] [--steps N] [--prompts 16]
    python examples/sheet.py --out newcomer.png --expand "a cat" "a dog in the rain"

The pictures in the README and in docs/model.md were made with these commands.
"""

import argparse
from pathlib import Path

import kinema
from kinema.checkpoints.expanders import load_expander
from kinema.prompts.expansion import expand
from kinema.video import contact_sheet, save_image

PROMPTS = (
    "a rocket rises into the night sky over a snowy plain",
    "a soccer ball rolls to the right on a grassy field under a blue sky",
    "a red car drives to the left on a city road at sunset",
    "a penguin walks to the right on a snowy plain under a grey cloudy sky",
    "a balloon rises into the sky over a sandy desert at dawn",
    "a tractor drives to the right on a lavender field under a blue sky",
    "a duck walks to the left on a grassy field at sunset",
    "a pumpkin falls down onto a sandy desert at night",
    "a turtle walks to the left on a sandy desert under a blue sky",
    "a butterfly flies to the right over a lavender field at dawn",
    "a bus drives to the left on a city road at night",
    "a basketball bounces to the right on a wooden floor at sunset",
    "a helicopter flies to the left over a snowy plain at dawn",
    "an elephant walks to the right on a grassy field under a grey cloudy sky",
    "夜晚，一枚火箭从雪地上升空",
    "日落时，一辆红色汽车在城市街道上向右行驶",
)


def main() -> None:
    """Generate the videos and write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images/sheet.png"))
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--steps", type=int)
    parser.add_argument("given", nargs="*", metavar="PROMPT", help="prompts to use instead of the sixteen")
    parser.add_argument("--expand", action="store_true", help="beside every prompt, its expansion")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="use only the first N prompts")
    arguments = parser.parse_args()
    pipeline = kinema.load(arguments.model)
    rows = [[prompt] for prompt in arguments.given or PROMPTS[: arguments.prompts]]
    if arguments.expand:
        rows = [[row[0], expand(row[0], load_expander(), seed=seed).prompt] for seed, row in enumerate(rows)]
    prompts = [prompt for row in rows for prompt in row]
    videos = [
        pipeline.run(kinema.Request(prompt, seed=seed, steps=arguments.steps)).video
        for seed, row in enumerate(rows)
        for prompt in row
    ]
    save_image(arguments.out, contact_sheet(videos, prompts, columns=2, frames_per_video=6))
    print(arguments.out)


if __name__ == "__main__":
    main()
