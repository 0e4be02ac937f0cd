"""Peak memory and time of long videos: both should depend on the length as little as they can.

    python bench/long_memory.py --seconds 5 20 --steps 1
    python bench/long_memory.py --seconds 5 60 --size 256 --steps 4

Each length runs in a process of its own. Memory is the peak above what the process holds once the model is loaded and warm.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kinema.device import CPU, peak_memory_bytes
from kinema.generate.pipeline import Step, load
from kinema.generate.request import Request


def one(seconds: float, size: int, steps: int) -> None:
    """Print what one video of that length took."""
    pipeline = load()
    request = Request("a car drives across the snow", width=size, height=size, seconds=seconds, steps=steps, beyond_trained=True)
    pipeline.run(Request("a car", width=size, height=size, frames=1, steps=1, beyond_trained=True))
    loaded = peak_memory_bytes(CPU)
    begun, windows = time.perf_counter(), []

    def on_step(step: Step) -> None:
        if step.stage == "sample" and (step.index + 1) % steps == 0:
            windows.append(step.seconds)

    with tempfile.TemporaryDirectory() as folder:
        pipeline.write(request, Path(folder) / "long.mp4", on_step=on_step)
    took = [b - a for a, b in zip([0.0, *windows], windows)]
    quarter = max(1, len(took) // 6)
    values = {
        "peak_mib": (peak_memory_bytes(CPU) - loaded) / 2**20,
        "total_s": time.perf_counter() - begun,
        "first_windows_s": sum(took[1 : 1 + quarter]) / quarter,
        "last_windows_s": sum(took[-quarter:]) / quarter,
    }
    print(json.dumps({name: round(value, 3) for name, value in values.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
