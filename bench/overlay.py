"""Recall and false positives of `kinema.data.curation.overlay` on a generated test set.

    python bench/overlay.py [--clips 200]

Half of the clips show the stage, half a texture that slides, pans or stands still. Each is tested without and
with overlaid text of random words, size, weight, colour, outline and position. Fences are clips of static
vertical bars, which resemble text.
"""

import argparse
import random

import cv2
import numpy as np

from kinema.data.curation.overlay import share
from kinema.data.world_clips import draw_clips
from kinema.worlds.stage import StageConfig, StageWorld

WORDS = [
    *("subscribe", "LIVE", "12:45", "news", "breaking", "(c)", "2024", "www.example.com"),
    *("the", "end", "of", "a", "film", "EPISODE", "7", "previously", "on", "credits"),
]
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)
THRESHOLDS = (0.001, 0.002, 0.004, 0.008)


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Frames of smooth noise that stands still or slides."""
    small = rng.integers(0, 256, (height // 8, 2 * width // 8, 3), dtype=np.uint8)
    wide = cv2.resize(small, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    speed = int(rng.integers(0, 5))
    return np.stack([wide[:, speed * i : speed * i + width] for i in range(9)])


def fence(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Frames of still vertical bars over a texture."""
    frames = texture(rng, height, width)
    gap, top = int(rng.integers(6, 16)), int(rng.integers(height // 4, height // 2))
    for x in range(0, width, gap):
        frames[:, top : top + height // 5, x : x + gap // 3] = 230
    return frames


def with_text(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    """The frames with a line of text over all of them."""
    height, width = frames.shape[1:3]
    text, font = " ".join(rng.sample(WORDS, rng.randint(2, 4))), rng.choice(FONTS)
    thickness = rng.choice((1, 1, 2))
    scale = rng.uniform(0.05, 0.11) * height / 22
    (long, tall), _ = cv2.getTextSize(text, font, scale, thickness)
    scale *= min(1.0, 0.95 * width / long)
    (long, tall), _ = cv2.getTextSize(text, font, scale, thickness)
    at = rng.randint(0, max(0, width - long)), rng.randint(tall + 2, height - 4)
    colour, outline = (
        rng.choice((((255,) * 3, (0,) * 3), ((255, 230, 0), (0,) * 3), ((0,) * 3, (255,) * 3))),
        rng.random() < 0.5,
    )
    made = frames.copy()
    for frame in made:
        if outline:
            cv2.putText(frame, text, at, font, scale, colour[1], thickness + 2, cv2.LINE_AA)
        cv2.putText(frame, text, at, font, scale, colour[0], thickness, cv2.LINE_AA)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=200)
    count = parser.parse_args().clips
    world, half = StageWorld(StageConfig(split="all")), count // 2
    stage = [
        clip.frames for clip in draw_clips(world, "overlay", range(half), height=144, width=256, num_frames=9)
    ]
    textures = [texture(np.random.default_rng(i), 144, 256) for i in range(count - half)]
    bare = {
        "the stage": stage,
        "textures": textures,
        "fences": [fence(np.random.default_rng(i), 144, 256) for i in range(half)],
    }
    rng = random.Random(0)
    print(
        "| at most | "
        + " | ".join([f"false alarms: {name}" for name in bare] + ["missed: the stage", "missed: textures"])
        + " |"
    )
    print("|---" * (len(bare) + 3) + "|")
    none = {name: np.array([share(clip) for clip in clips]) for name, clips in bare.items()}
    some = {
        name: np.array([share(with_text(clip, rng)) for clip in bare[name]])
        for name in ("the stage", "textures")
    }
    for most in THRESHOLDS:
        cells = [f"{(shares > most).mean():.0%}" for shares in none.values()] + [
            f"{(shares <= most).mean():.0%}" for shares in some.values()
        ]
        print(f"| {most} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
