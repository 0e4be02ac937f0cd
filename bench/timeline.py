"""Measures the tasks of the timeline: joins, loops, region edits and drift.

    python bench/timeline.py                      # 50 cases a task
    python bench/timeline.py --cases 4 --steps 8  # a look

Cases are clips of the world that the model was trained on, with seeds that training does not use.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kinema.evaluate import tasks
from kinema.generate.pipeline import load
from kinema.worlds import StageConfig, StageWorld

FIRST_SEED = 9_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--drift-seconds", type=float, default=20.0, help="0: leave the drift out")
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    words = pipeline.manifest.vocabulary
    stage = StageWorld(StageConfig(verbs=tuple(words["verbs"]), nouns=tuple(words["nouns"]), max_objects=1, cameras=("still",)))
    height, width = pipeline.manifest.default_size
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    fps = pipeline.manifest.fps
    # Of 26 frames, 9 and 9 frame a gap of 8, which is two latents; the other tasks use 25.
    long = [stage.clip(FIRST_SEED + i, height=height, width=width, num_frames=26, fps=fps) for i in range(arguments.cases)]
    clips = [replace(clip, frames=clip.frames[:25]) for clip in long]

    measures: dict[str, Callable[[int], tasks.Joined | tasks.Looped | tasks.Edited]] = {
        "extend forward": lambda i: tasks.measure_extension(pipeline, clips[i], num_known=9, direction="forward", seed=i, **steps),
        "extend backward": lambda i: tasks.measure_extension(pipeline, clips[i], num_known=9, direction="backward", seed=i, **steps),
        "connect": lambda i: tasks.measure_connection(pipeline, long[i], num_known=9, seed=i, **steps),
        "loop": lambda i: tasks.measure_loop(pipeline, clips[i].captions["medium"], frames=16, seed=i, **steps),
        "edit region": lambda i: tasks.measure_region_edit(
            pipeline,
            clips[i],
            clips[(i + 1) % len(clips)].captions["medium"],
            region=(width // 4, height // 4, width // 2, height // 2),
            seed=i,
            **steps,
        ),
    }
    found = {}
    for name, measure in measures.items():
        found[name] = tasks.rows([measure(i) for i in range(arguments.cases)])
        print(f"{name:16}", "  ".join(f"{key} {value:.2f}" for key, value in found[name].items()), flush=True)
    if arguments.drift_seconds:
        drifted = tasks.measure_drift(pipeline, clips[0].captions["medium"], seconds=arguments.drift_seconds, **steps)
        found["drift"] = {"ratio": drifted.ratio, **drifted.slopes}
        print(f"{'drift':16} plain extension drifts {drifted.ratio:.1f} times as fast;", drifted.slopes, "against", drifted.plain_slopes)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
