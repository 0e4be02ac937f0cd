"""Quality against time: what a model scores on held-out prompts by sampler, steps, guidance and shift, as a Markdown table.

    python bench/sampling_curve.py [--model DIR] [--prompts 50] [--samplers unipc,euler] [--steps 8,12,20] [--guidance 3,5] [--shift 1,3]

Every row is an evaluation of its own in a folder of its own below --out, so that a bench that was stopped goes on. Seconds are those of
the clips made in this call, on the wall's clock; a row whose clips were all there already has none.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import kinema
from kinema.diffusion.samplers import SAMPLERS
from kinema.evaluation import EvaluationConfig, evaluate
from kinema.evaluation.alignment import ALL
from kinema.registry import lookup


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    return [float(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--samplers", default="unipc,euler", help="names between commas")
    parser.add_argument("--steps", type=numbers, default=[8, 12, 20])
    parser.add_argument("--guidance", type=numbers, help="default: the model's own")
    parser.add_argument("--shift", type=numbers, help="default: the model's own")
    parser.add_argument(
        "--oracle", type=Path, help="an oracle's folder (default: the one inside the package)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sampling_curve"))
    arguments = parser.parse_args()
    pipeline = kinema.load(arguments.model)
    base = EvaluationConfig(
        prompts=arguments.prompts, splits=("held_out",), num_vae_clips=1, num_clip_clips=1
    )
    guidances, shifts = (
        arguments.guidance or [pipeline.manifest.guidance],
        arguments.shift or [pipeline.manifest.shift],
    )
    samplers = arguments.samplers.split(",")
    for name in samplers:
        lookup(SAMPLERS, name, kind="sampler")
    folder = arguments.out / f"{pipeline.manifest.name}-{pipeline.model_hash}"
    shown: list[str] = []
    for sampler, steps, guidance, shift in itertools.product(
        samplers, map(int, arguments.steps), guidances, shifts
    ):
        config = replace(base, sampler=sampler, steps=steps, guidance=guidance, shift=shift)
        out = folder / f"{sampler}-{steps}-{guidance:g}-{shift:g}"
        clock: list[float] = []
        num_made = arguments.prompts - len(list(out.glob("clips/*.mp4")))

        def on_progress(stage: str, done: int, total: int, clock: list[float] = clock) -> None:
            if stage == "generating":
                clock.append(time.perf_counter())

        report = evaluate(
            pipeline,
            config,
            out,
            oracle_folder=arguments.oracle,
            trust_file=folder / "trust.json",
            on_progress=on_progress,
        )
        slots = report["splits"]["held_out"]["slots"]
        if not shown:
            names = list(slots)
            print(f"| sampler | steps | guidance | shift | s a clip | {' | '.join(names)} |")
            print(f"|---|---|---|---|---|{'---|' * len(names)}")
            shown = names
        seconds = f"{(clock[-1] - clock[0]) / num_made:.2f}" if num_made > 0 else ""
        figures = " | ".join(f"{slots[name]['model']:.0%}" if name in slots else "" for name in shown)
        print(f"| {sampler} | {steps} | {guidance:g} | {shift:g} | {seconds} | {figures} |", flush=True)
    print(
        f"\n{arguments.prompts} held-out prompts a row, {pipeline.manifest.name} {pipeline.model_hash}; {ALL}: every slot of a clip"
    )


if __name__ == "__main__":
    main()
