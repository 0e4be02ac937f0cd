"""Peak memory and CPU seconds per second of video of long videos; neither should grow with the length.

    python bench/long_memory.py --seconds 5 20 --steps 1
    python bench/long_memory.py --seconds 5 60 --size 256 --steps 1

Each length runs in its own process. Memory is the peak above the process with the loaded model; it does not
depend on the number of steps. Time is CPU time per second of video, in the first and in the last ten seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kinema.device import CPU, peak_memory_bytes
from kinema.generation.conditioning.layout import frames_of
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.generation.result import Step

EDGE_SECONDS = 10.0


def one(seconds: float, size: int, steps: int) -> None:
    """Print what one video of that length took."""
    pipeline = load()
    request = Request(
        "a car drives across the snow",
        width=size,
        height=size,
        seconds=seconds,
        steps=steps,
        beyond_trained=True,
    )
    plan = pipeline.plan(request)
    loaded = peak_memory_bytes(CPU)
    begun = time.process_time()
    sampled: list[tuple[float, float]] = []  # seconds of video made, seconds of work until then
    decoded: list[tuple[float, float]] = []

    def on_step(step: Step) -> None:
        done = time.process_time() - begun
        if step.phase == "decode":
            decoded.append(((step.index + 1) / plan.fps, done))
        elif (step.index + 1) % steps == 0:
            last = plan.windows[step.index // steps].new_stop - 1
            sampled.append((min(plan.frames, frames_of(last, plan.temporal_factor).stop) / plan.fps, done))

    with tempfile.TemporaryDirectory() as folder:
        pipeline.write(request, Path(folder) / "long.mp4", on_step=on_step)
    values = {"peak_mib": (peak_memory_bytes(CPU) - loaded) / 2**20, "total_s": time.process_time() - begun}
    for name, stage in (("sampling", sampled), ("decoding", decoded)):
        if seconds >= 2 * EDGE_SECONDS:
            values |= {
                f"{name}_first": rate(stage, 0, EDGE_SECONDS),
                f"{name}_last": rate(stage, seconds - EDGE_SECONDS, seconds),
            }
    print(json.dumps({name: round(value, 3) for name, value in values.items()}))


def rate(stage: list[tuple[float, float]], first_s: float, last_s: float) -> float:
    """CPU seconds per second of video between two positions.

    The first window of a phase, the warm-up, is excluded.
    """
    inside = [(made, done) for made, done in stage if first_s <= made <= last_s]
    (first, begun), (last, ended) = inside[0], inside[-1]
    return (ended - begun) / (last - first)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 60])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return one(arguments.seconds[0], arguments.size, arguments.steps)
    for seconds in arguments.seconds:
        words = [
            sys.executable,
            __file__,
            "--one",
            "--seconds",
            str(seconds),
            "--size",
            str(arguments.size),
            "--steps",
            str(arguments.steps),
        ]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        print(f"{seconds:g} s at {arguments.size}x{arguments.size}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
