"""Processor seconds to cut and score clips: one shared pass against the usual chain, on the same files.

    python bench/data_chain.py FILE...

The usual chain is PySceneDetect over the file, then five filters that each open the file anew for every clip, seek and decode it:
motion, sharpness, exposure, borders and a hash. Both measure the same on frames of the same size, so what differs is the decoding.
"""

import argparse
import time
from pathlib import Path

import cv2
import scenedetect

from kinema.config import to_dict
from kinema.curate.recipe import DataRecipe
from kinema.curate.scores import dhash, inside_borders, motion
from kinema.curate.stages import look
from kinema.video import scanning
from kinema.video.scanning import read_spans

RECIPE = DataRecipe()
FILTERS = {
    "motion": lambda greys: motion(greys[::3], 3 / 25),
    "sharpness": lambda greys: [cv2.Laplacian(grey, cv2.CV_64F).var() for grey in greys[::8]],
    "exposure": lambda greys: [cv2.meanStdDev(grey) for grey in greys[::3]],
    "borders": lambda greys: inside_borders(greys[::3]),
    "hash": lambda greys: [dhash(grey) for grey in greys[:: max(1, len(greys) // 3)]],
}


def shrink(index: int, pixels):
    scale = RECIPE.side / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def usual_chain(path: Path) -> int:
    """The number of clips after the usual chain has seen the file."""
    longest = RECIPE.clips.max_frames / RECIPE.clips.fps
    scenes = scenedetect.detect(str(path), scenedetect.ContentDetector(), start_in_scene=True)
    spans = []
    for start, end in ((first.seconds, last.seconds) for first, last in scenes):
        while end - start > 0.04:
            spans.append((start, min(end, start + longest)))
            start += longest
    for measure in FILTERS.values():
        for span in spans:
            measure([frame.pixels for frame in next(read_spans(path, [span], shrink))])
    return len(spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    scanning.SEEK_S = 0.0  # each filter seeks to its clip
    for path in arguments.files:
        started = time.process_time()
        shared = len(look({"path": str(path), "recipe": to_dict(RECIPE)})["clips"])
        middle = time.process_time()
        usual = usual_chain(path)
        end = time.process_time()
        ours, theirs = middle - started, end - middle
        print(f"{path.name}: {shared} clips in {ours:.2f} s shared, {usual} in {theirs:.2f} s one by one: {theirs / ours:.1f} times")


if __name__ == "__main__":
    main()
