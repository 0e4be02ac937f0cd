"""What prompt expansion adds, what it keeps, and what it is worth to the video model.

    python bench/expansion.py               # words added to 10 prompts, parts kept of 200 prompts
    python bench/expansion.py --clips 60    # and clips of held-out combinations, read by the oracle

The 200 prompts have unknown words, numbers, quotes and negations, in two languages. The clips are of prompts
that name a subject, or a subject and a verb; the share is of the slots that the short prompt names.
"""

import argparse
import random

import numpy as np
import torch

import kinema
from kinema.checkpoints.expanders import load_expander
from kinema.evaluation.samples import ClipFormat, draw_samples, trained_world
from kinema.evaluation.trust import grade_reading, load_checked_oracle
from kinema.generation.request import Request
from kinema.prompts.expansion import PromptExpander, expand
from kinema.worlds import HasPromptPairs
from kinema.worlds.stage.grammar import article, plural
from kinema.worlds.stage.nouns import NOUNS

NEWCOMER = ("a car", "a horse runs", "a penguin at night", "a cat", "a dog in the rain", "balloon", "a star")
NEWCOMER += ("two elephants on the moon", "a rocket", "a ball bounces")
MIN_ADDED = 4
UNKNOWN = ("quokka", "zeppelin", "samovar", "Ada Lovelace", "kinkajou", "theremin", "Rotkäppchen")
UNKNOWN_ZH = ("水豚", "飞艇", "麒麟", "古筝")
VERBS = ("runs", "walks", "rolls", "flies", "jumps", "dances", "drives to the left", "bounces")
VERBS_ZH = ("奔跑", "向左行走", "飞行", "跳舞", "滚动")
COUNTS = ("", "", "two ", "three ", "7 ", "12 ")
COUNTS_ZH = ("一只", "两只", "三只", "7只")
ENDS = (
    "",
    "",
    ", no snow",
    " without clouds",
    ' with a sign "OPEN 24 h"',
    ", not at night",
    " on a road",
    "!",
)
ENDS_ZH = ("", "", "，没有雪", "，不要草地", "，旗子上写着“欢迎”", "在马路上")


def draw_prompt(rng: random.Random, is_chinese: bool) -> tuple[str, list[str]]:
    """A prompt, and its noun, number, verb, and quote, negation or place, each as plain text."""
    if is_chinese:
        noun = rng.choice([rng.choice(UNKNOWN_ZH), rng.choice(list(NOUNS.values())).chinese])
        parts = [rng.choice(COUNTS_ZH), noun, rng.choice(VERBS_ZH), rng.choice(ENDS_ZH)]
        return "".join(parts), [part.lstrip("，") for part in parts]
    noun = rng.choice([rng.choice(UNKNOWN), rng.choice(list(NOUNS)), rng.choice(list(NOUNS))])
    count, verb, end = rng.choice(COUNTS), rng.choice(VERBS), rng.choice(ENDS)
    noun = plural(noun) if count else noun
    subject = count + noun if count else rng.choice([article(noun), noun])
    return f"{subject} {verb}{end}", [count.strip(), noun, *verb.split(), end.strip(" ,!")]


def measure_added(expander: PromptExpander) -> None:
    """Print the expansions of the prompts of newcomers, and how many gain words."""
    gains = []
    for index, prompt in enumerate(NEWCOMER):
        made = expand(prompt, expander, seed=index).prompt
        gains.append(len(made.split()) - len(prompt.split()))
        print(f"  {prompt} -> {made}")
    print(f"{sum(gain >= MIN_ADDED for gain in gains)} of {len(gains)} gain at least {MIN_ADDED} words")


def measure_kept(expander: PromptExpander, count: int) -> None:
    """Print how many prompts keep all that they name."""
    num_kept = 0
    for index in range(count):
        prompt, parts = draw_prompt(random.Random(index), index % 4 == 3)
        made = expand(prompt, expander, seed=index).prompt
        num_kept += all(part in made for part in parts)
    print(f"{num_kept} of {count} keep every noun, verb, number, quote and negation")


def measure_following(model: str, expander: PromptExpander, count: int, steps: int) -> None:
    """Print the share of named slots that the oracle reads as named, of short and of expanded prompts."""
    pipeline = kinema.load(model)
    world = trained_world(pipeline.manifest)
    assert isinstance(world, HasPromptPairs), "the world writes short prompts"
    oracle, plan = load_checked_oracle(pipeline, world, None), pipeline.plan(Request("any"))
    clip_format = ClipFormat(plan.height, plan.width, plan.frames, plan.fps)
    shares: dict[str, list[bool]] = {"as written": [], "expanded": []}

    for index, sample in enumerate(draw_samples(world, "held_out", count, clip_format)):
        has_verb = index % 2 == 1
        slots = ["noun"] + ["verb"] * has_verb + ["size"] * (sample.truth["size"] != "regular")
        short = world.subject_prompt(sample.truth, "en", random.Random(index), with_verb=has_verb)
        prompts = {"as written": short, "expanded": expand(short, expander, seed=sample.seed).prompt}
        for name, prompt in prompts.items():
            clip = pipeline.run(Request(prompt, seed=sample.seed, steps=steps)).video
            (reading,) = oracle.read([clip.frames], plan.fps)
            shares[name] += grade_reading(reading, sample.asked, slots).values()
    for name, grades in shares.items():
        print(f"{name}: {np.mean(grades):.1%} of {len(grades)} named slots of {count} clips")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--expander", default="shipped", help="as of kinema generate")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--clips", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    expander = load_expander(arguments.expander)
    measure_added(expander)
    measure_kept(expander, arguments.prompts)
    if arguments.clips:
        measure_following(arguments.model, expander, arguments.clips, arguments.steps)


if __name__ == "__main__":
    main()
