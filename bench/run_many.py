"""The time of a batch of requests against that of single runs, with the time of each part.

    OMP_WAIT_POLICY=PASSIVE python bench/run_many.py [--requests 4] [--size 128x128] [--frames 17]

Both make the same videos in float32 with the shipped model. Repeats alternate between the two, and the
fastest of each counts. Seconds of wall clock and of the CPU (all threads of the process, which other
processes disturb less) are printed with the load of the machine, and the largest difference of a pixel.
"""

import argparse
import os
import time
from collections.abc import Generator
from contextlib import closing

import numpy as np
import torch

import kinema
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.generation.result import Result, Step

PROMPTS = ("a penguin walks", "a rocket rises into the night sky", "a red car drives", "a balloon rises")


def timed(events: Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Seconds (wall, CPU) of sampling, of decoding and of both, and the frames of all results."""
    start, frames = now(), []
    sampled = start
    with closing(events):
        for event in events:
            if isinstance(event, Step) and event.phase == "sample":
                sampled = now()
            elif isinstance(event, Result):
                frames.append(event.video.frames)
    end = now()
    return np.stack([sampled - start, end - sampled, end - start]), frames


def now() -> np.ndarray:
    """Seconds of the wall clock and of this process on the CPU."""
    return np.array([time.perf_counter(), time.process_time()])


def single(pipeline: Pipeline, requests: list[Request]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The requests one by one."""
    runs = [timed(pipeline.stream_many([request])) for request in requests]
    return np.sum([seconds for seconds, _ in runs], axis=0), [
        frames for _, videos in runs for frames in videos
    ]


def main() -> None:
    """Print a row for the single runs and one for the batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    pipeline = kinema.load(precision="fp32")
    width, height = map(int, arguments.size.split("x"))
    size = {"width": width, "height": height, "frames": arguments.frames, "steps": arguments.steps}
    requests = [
        Request(PROMPTS[seed % len(PROMPTS)], seed=seed, **size) for seed in range(arguments.requests)
    ]
    pipeline.run_many([Request(request.prompt, **{**size, "steps": 1}) for request in requests])

    print(f"{arguments.requests} x {pipeline.plan(requests[0]).text}, {arguments.threads} threads")
    print(f"load before: {os.getloadavg()[0]:.1f}")
    alone, together = [], []
    for _ in range(arguments.repeats):
        alone.append(single(pipeline, requests))
        together.append(timed(pipeline.stream_many(requests)))
    print(f"load after: {os.getloadavg()[0]:.1f}")

    best = [np.min([seconds for seconds, _ in runs], axis=0) for runs in (alone, together)]
    print("| | sampling: wall, CPU | decoding: wall, CPU | both: wall, CPU |\n|---|---|---|---|")
    for name, seconds in zip(("single runs", "batch"), best):
        print(f"| {name} | " + " | ".join(f"{wall:.2f} s, {cpu:.2f} s" for wall, cpu in seconds) + " |")
    print("| ratio | " + " | ".join(f"{wall:.2f}, {cpu:.2f}" for wall, cpu in best[0] / best[1]) + " |")
    pairs = zip(alone[0][1], together[0][1])
    print(f"largest difference: {max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs)} of 255")


if __name__ == "__main__":
    main()
