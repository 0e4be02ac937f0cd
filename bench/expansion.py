"""What prompt expansion keeps, and what it is worth to the video model.

    python bench/expansion.py                      # 200 prompts: is everything that they name kept?
    python bench/expansion.py --clips 40           # and short prompts with and without it, read by the oracle

The 200 prompts are made of words that the expander knows and of ones that it has never seen, numbers, quotes and negations, in English and
Chinese. What is kept is looked for as plain text, not by the check that the package makes itself. For the clips, short captions of held-out
combinations are generated with one seed each, once as they are and once expanded; a slot counts when the short caption names it.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np

from kinema.checkpoints.folders import load_oracle
from kinema.evaluation.samples import Shown, draw_samples, stage_of, world_of
from kinema.evaluation.trust import judge, scored_slots
from kinema.generation.expansion import expand, load_expander
from kinema.generation.loading import load
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.worlds.stage import grammar
from kinema.worlds.stage.nouns import NOUNS

STRANGE = (
    "quokka",
    "zeppelin",
    "samovar",
    "Ada Lovelace",
    "kinkajou",
    "theremin",
    "dodecahedron",
    "Rotkäppchen",
)
STRANGE_ZH = ("水豚", "飞艇", "麒麟", "古筝")
ACTIONS = ("runs", "walks", "rolls", "flies", "jumps", "dances", "drives to the left", "bounces")
ACTIONS_ZH = ("奔跑", "向左行走", "飞行", "跳舞", "滚动")
COUNTS = ("", "", "two ", "three ", "7 ", "12 ")
COUNTS_ZH = ("一只", "两只", "三只", "7只")
ENDS = (
    "",
    "",
    "",
    ", no snow",
    " without clouds",
    ' with a sign that says "OPEN 24 h"',
    ", not at night",
    " on a road",
    " at sunset",
    "!",
)
ENDS_ZH = ("", "", "，没有雪", "，不要草地", "，旗子上写着“欢迎”", "在马路上")


def prompts(count: int) -> list[tuple[str, list[str]]]:
    """Prompts, each with the nouns, numbers, quotes and negations that must be in its expansion as they are."""
    made = []
    for index in range(count):
        rng = random.Random(index)
        if index % 4 == 3:
            noun = rng.choice([rng.choice(STRANGE_ZH), rng.choice(list(NOUNS.values())).chinese])
            number, action, end = rng.choice(COUNTS_ZH), rng.choice(ACTIONS_ZH), rng.choice(ENDS_ZH)
            made.append(
                (f"{number}{noun}{action}{end}", [part for part in (number, noun, end.lstrip("，")) if part])
            )
            continue
        noun = rng.choice([rng.choice(STRANGE), rng.choice(list(NOUNS)), rng.choice(list(NOUNS))])
        number, action, end = rng.choice(COUNTS), rng.choice(ACTIONS), rng.choice(ENDS)
        words = f"{number}{grammar.plural(noun)}" if number else rng.choice([grammar.article(noun), noun])
        made.append(
            (
                f"{words} {action}{end}",
                [number.strip(), noun if not number else grammar.plural(noun), end.strip(" ,!")],
            )
        )
    return made


def keep(expander_place: str, count: int) -> None:
    """Print how many prompts keep all that they name."""
    expander = load_expander(expander_place)
    begun, num_kept, longer, examples = time.process_time(), 0, [], []
    for index, (prompt, named) in enumerate(prompts(count)):
        made = expand(prompt, expander, seed=index).prompt
        is_kept = all(part in made for part in named)
        num_kept += is_kept
        longer.append(len(made) / len(prompt))
        if not is_kept or index < 8:
            examples.append(f"  {'kept' if is_kept else 'LOST'}: {prompt}  ->  {made}")
    seconds = (time.process_time() - begun) / count
    print(f"{num_kept} of {count} prompts keep every noun, number, quote and negation")
    print(f"expansions are {np.mean(longer):.1f} times as long, and take {seconds:.3f} s each")
    print("\n".join(examples))


def is_named(slot: str, truth: dict, short: str) -> bool:
    """Whether the short caption says something of that slot."""
    if slot in ("noun", "verb"):
        return True
    phrases = {
        **grammar.optional_phrases("en"),
        "direction": [text for names in grammar.DIRECTIONS.values() for text in names if text],
    }
    return any(f" {phrase} " in f" {short} " for phrase in phrases.get(slot, ()))


def follow(pipeline: Pipeline, expander_place: str, num_clips: int, steps: int, out: Path | None) -> None:
    """Print the share of named slots that the oracle reads as named, with and without expansion."""
    expander, stage = load_expander(expander_place), stage_of(pipeline.manifest)
    plan = pipeline.plan(Request("any"))
    shown = Shown(plan.height, plan.width, plan.frames, plan.fps)
    oracle, slots, world = load_oracle(), scored_slots(stage), world_of(stage, "held_out")
    right: dict[str, list[dict[str, bool]]] = {"as written": [], "expanded": []}
    for sample in draw_samples(stage, "held_out", num_clips, shown):
        truth = dict(sample.truth)
        short = world.caption(truth, "short")
        named = [slot for slot in slots if is_named(slot, truth, short)]
        for way in right:
            prompt = short if way == "as written" else expand(short, expander, seed=sample.seed).prompt
            result = pipeline.run(Request(prompt, seed=sample.seed, steps=steps))
            (reading,) = oracle.read([result.video.frames], shown.fps)
            verdict = judge(reading, truth, slots)
            right[way].append({slot: bool(verdict[slot]) for slot in named if verdict.get(slot) is not None})
            if out is not None:
                result.save(out / f"{sample.name}-{way.replace(' ', '-')}.mp4")
        if (len(right["expanded"])) % 10 == 0:
            report(right, slots)
    report(right, slots)


def report(right: dict[str, list[dict[str, bool]]], slots: tuple[str, ...]) -> None:
    """Print a table in Markdown."""
    print(
        f"\n| short prompts, {len(right['expanded'])} clips | {' | '.join(slots)} | named slots right | all named slots right |"
    )
    print("|" + "---|" * (len(slots) + 3))
    for way, verdicts in right.items():
        cells = []
        for slot in slots:
            answers = [verdict[slot] for verdict in verdicts if slot in verdict]
            cells.append(f"{np.mean(answers):.0%} of {len(answers)}" if answers else "-")
        every = [answer for verdict in verdicts for answer in verdict.values()]
        print(
            f"| {way} | {' | '.join(cells)} | {np.mean(every):.1%} of {len(every)} | {np.mean([all(v.values()) for v in verdicts]):.1%} |"
        )
    better = sum(sum(b.values()) > sum(a.values()) for a, b in zip(right["as written"], right["expanded"]))
    worse = sum(sum(b.values()) < sum(a.values()) for a, b in zip(right["as written"], right["expanded"]))
    print(f"expanded is better in {better} clips and worse in {worse}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expander", default="shipped", help="as of kinema generate")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--clips", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a folder for the clips")
    arguments = parser.parse_args()
    keep(arguments.expander, arguments.prompts)
    if arguments.clips:
        follow(
            load(arguments.model, device="cpu"),
            arguments.expander,
            arguments.clips,
            arguments.steps,
            arguments.out,
        )


if __name__ == "__main__":
    main()
