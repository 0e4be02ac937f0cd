"""The figures a newcomer feels, measured on this machine: start of the command line, the worlds' speed, a two-second clip.

    python bench/first_look.py [--model DIR]

Every figure is the median of several runs with its least and most, on the wall's clock.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each run."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def line(name: str, seconds: list[float], per: int = 1) -> str:
    """One figure for people; `per` clips a run turns it into clips a second."""
    if per > 1:
        rates = [per / s for s in seconds]
        return f"{name}: {statistics.median(rates):.0f} clips/s ({min(rates):.0f} to {max(rates):.0f})"
    return f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shipped")
    arguments = parser.parse_args()

    def show_help() -> None:
        subprocess.run([sys.executable, "-m", "kinema", "--help"], check=True, capture_output=True)

    print(line("kinema --help", timed(show_help, 5)))

    from kinema.worlds import WORLDS, StageConfig

    for nouns, objects in ((24, 1), (96, 3)):
        world = WORLDS["stage"](StageConfig(nouns=nouns, max_objects=objects))
        drawn = timed(
            lambda world=world: [world.clip(seed, height=64, width=64, num_frames=17) for seed in range(100)],
            3,
        )  # type: ignore[misc]
        print(line(f"stage, 64x64x17, {nouns} nouns, up to {objects} objects, one thread", drawn, per=100))

    import kinema
    from kinema.device import describe

    pipeline = kinema.load(arguments.model)
    request = kinema.Request("a rocket rises into the night sky over a snowy plain", seconds=2)
    print(f"{pipeline.manifest.name} on {describe(pipeline.device)}: {pipeline.plan(request).text}")
    print(line("a two-second clip, model loaded", timed(lambda: pipeline.run(request), 3)))


if __name__ == "__main__":
    main()
