"""CPU seconds to cut and score clips, and the accepted clips: one shared pass against separate filters.

    python bench/data_chain.py FILE...
    python bench/data_chain.py --made 24

The usual chain is PySceneDetect, then filters that each open the file again for every clip, seek, decode and
apply their own threshold: motion, sharpness, exposure, borders and a hash. Both measure the same values on
frames of the same size and use the recipe's thresholds; only the decoding differs. `--made N` renders N films
of nine shots of the stage in a temporary folder. Some shots are darkened, blurred, frozen, faded out,
letterboxed or noisy, so that every filter rejects some.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import scenedetect

from kinema.config import to_dict
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.scores import dhash, inside_borders, motion
from kinema.data.curation.steps.analyze import analyze
from kinema.video import Video, scanning
from kinema.video.reading import at_constant_rate
from kinema.video.scanning import read_header, read_spans
from kinema.worlds.stage import StageWorld

RECIPE = DataRecipe()
FPS = 24.0
SHOTS, SHOT_FRAMES, HEIGHT, WIDTH = 9, 48, 240, 320
OVERLAP = 0.5
"""Intersection over union from which two spans count as one clip; the chains cut fade-outs differently."""

Span = tuple[float, float]
Greys = Sequence[np.ndarray]


def _inner(greys: Greys) -> Greys:
    top, left, bottom, right = inside_borders(greys)
    h, w = greys[0].shape
    return [grey[round(top * h) : round(bottom * h), round(left * w) : round(right * w)] for grey in greys]


def _is_lively(greys: Greys, interval_s: float) -> bool:
    return RECIPE.filters.min_motion <= motion(_inner(greys), interval_s) <= RECIPE.filters.max_motion


def _is_sharp(greys: Greys, interval_s: float) -> bool:
    inner = _inner(greys)
    middle = inner[len(inner) // 3 : len(inner) // 3 + 3]
    return (
        float(np.median([cv2.Laplacian(grey, cv2.CV_64F).var() for grey in middle]))
        >= RECIPE.filters.min_sharpness
    )


def _is_exposed(greys: Greys, interval_s: float) -> bool:
    stats = np.array([cv2.meanStdDev(grey) for grey in _inner(greys)])[..., 0, 0].mean(axis=0) / 255
    limits = RECIPE.filters
    return bool(
        limits.min_brightness <= stats[0] <= limits.max_brightness and stats[1] >= limits.min_contrast
    )


def _is_filled(greys: Greys, interval_s: float) -> bool:
    top, left, bottom, right = inside_borders(greys)
    return 1 - (bottom - top) * (right - left) <= RECIPE.filters.max_border


def _has_hash(greys: Greys, interval_s: float) -> bool:
    dhash(_inner(greys)[len(greys) // 2])
    return True


FILTERS: Sequence[Callable[[Greys, float], bool]] = (
    _is_lively,
    _is_sharp,
    _is_exposed,
    _is_filled,
    _has_hash,
)


def shrink(index: int, pixels: np.ndarray) -> np.ndarray:
    """Grey, no side longer than the recipe looks at."""
    scale = RECIPE.side / max(pixels.shape[:2])
    small = (
        cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    )
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def usual_chain(path: Path) -> dict[Span, bool]:
    """The clips that the usual chain cuts out of a file, and whether all of its filters accept them."""
    longest_s = RECIPE.clips.max_frames / RECIPE.clips.fps
    scenes = scenedetect.detect(str(path), scenedetect.ContentDetector(), start_in_scene=True)
    spans = []
    for start, end in ((first.seconds, last.seconds) for first, last in scenes):
        while end - start > 0.04:
            spans.append((start, min(end, start + longest_s)))
            start += longest_s
    source_fps = read_header(path).fps
    accepted = dict.fromkeys(spans, True)
    for accepts in FILTERS:
        for span in spans:
            frames = next(read_spans(path, [span], shrink))
            rate = min(RECIPE.clips.fps, source_fps)
            timed = [(frame.time_s, frame.duration_s, frame.pixels) for frame in frames]
            accepted[span] &= accepts(list(at_constant_rate(timed, rate, source_fps)), 1 / rate)
    return accepted


def shared_pass(path: Path) -> dict[Span, bool]:
    """The same of Kinema's one pass."""
    limits, clips = RECIPE.filters, analyze({"path": str(path), "recipe": to_dict(RECIPE)})["clips"]
    return {
        (clip["start_s"], clip["end_s"]): limits.min_motion <= clip["motion"] <= limits.max_motion
        and clip["sharpness"] >= limits.min_sharpness
        and limits.min_brightness <= clip["brightness"] <= limits.max_brightness
        and clip["contrast"] >= limits.min_contrast
        and clip["border"] <= limits.max_border
        for clip in clips
    }


def accept_sets(ours: dict[Span, bool], theirs: dict[Span, bool]) -> tuple[int, int]:
    """How many clips both sides accept, and how many either does: see `OVERLAP`."""

    def overlap(a: Span, b: Span) -> float:
        return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0]))

    kept, usual = ([span for span, accepted in spans.items() if accepted] for spans in (ours, theirs))
    both = sum(any(overlap(a, b) >= OVERLAP for b in usual) for a in kept)
    return both, len(kept) + len(usual) - both


def made_films(folder: Path, count: int) -> Iterator[Path]:
    """Films of stage shots, every one made worse in some way or left as it is."""
    world = StageWorld()
    for index in range(count):
        rng, shots = np.random.default_rng(index), []
        for shot in range(SHOTS):
            clip = world.clip(
                SHOTS * index + shot, height=HEIGHT, width=WIDTH, num_frames=SHOT_FRAMES, fps=FPS
            )
            shots.append(WAYS[int(rng.integers(len(WAYS)))](clip.frames.copy(), rng))
        path = folder / f"film{index:03d}.mp4"
        Video(np.concatenate(shots), FPS).save(path)
        yield path


def _darkened(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (frames * rng.uniform(0.02, 0.2)).astype(np.uint8)


def _blurred(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.5, 4)) for frame in frames])


def _stilled(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(frames[:1], len(frames), axis=0)


def _faded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (frames * np.linspace(1, 0, len(frames))[:, None, None, None]).astype(np.uint8)


def _letterboxed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows = int(HEIGHT * rng.uniform(0.05, 0.4))
    frames[:, :rows] = frames[:, HEIGHT - rows :] = 0
    return frames


def _noisy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(frames + rng.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)


def _as_it_is(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return frames


WAYS = (_as_it_is, _as_it_is, _darkened, _blurred, _stilled, _faded, _letterboxed, _noisy)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--made", type=int, default=0, metavar="N", help="films to make and measure as well")
    arguments = parser.parse_args()
    if not arguments.files and not arguments.made:
        parser.error("nothing to measure: name files, or --made N")
    cv2.setNumThreads(1)
    scanning.SEEK_S = 0.0  # each filter seeks to its clip
    seconds, both, either = np.zeros(2), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for path in [*arguments.files, *made_films(Path(folder), arguments.made)]:
            started = time.process_time()
            ours = shared_pass(path)
            middle = time.process_time()
            theirs = usual_chain(path)
            spent = np.array([middle - started, time.process_time() - middle])
            same, of = accept_sets(ours, theirs)
            seconds, both, either = seconds + spent, both + same, either + of
            print(
                f"{path.name}: {len(ours)} clips in {spent[0]:.2f} s shared, "
                f"{len(theirs)} in {spent[1]:.2f} s one by one: "
                f"{spent[1] / spent[0]:.1f} times; {same} of {of} accepted by both",
                flush=True,
            )
    print(
        f"in all {seconds[1] / seconds[0]:.1f} times; "
        f"{both} of the {either} clips that either accepts are accepted by both"
    )


if __name__ == "__main__":
    main()
