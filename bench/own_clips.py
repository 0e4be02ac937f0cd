"""A model of one's own clips and words: VAE, CLIP and DiT are trained on a data set, without any sprite.

    python bench/own_clips.py                  # prints the table; about five minutes on two cores
    python bench/own_clips.py --keep runs/own  # keeps the films, the data set and the models

40 films of drifting shapes have captions such as "a crimson umbrella drifts over Tokyo". At least 60 of their
words are not in the vocabulary of the shipped model. Each network is trained with its tiny recipe.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from kinema.checkpoints.components import load_clip
from kinema.checkpoints.manifest import load_card
from kinema.checkpoints.shipped import shipped_model
from kinema.cli.main import main as kinema
from kinema.video import Video

RECIPES = Path(__file__).parents[1] / "recipes"
NUM_CLIPS, SIDE, NUM_FRAMES, FPS = 40, 96, 34, 16.0
THINGS, PLACES, LOOKS = (
    words.split()
    for words in (
        "umbrella teapot lantern violin cactus anchor kettle ladder pretzel harp compass dumpling sandal "
        "wrench candle guitar zebra walrus otter falcon",
        "Tokyo Paris Nairobi Lima Oslo Cairo Kyoto Havana Dublin Prague Seoul Quito Delhi Athens Lagos "
        "Boston Venice Zurich Perth Hanoi",
        "crimson turquoise amber violet ivory scarlet indigo emerald copper magenta striped wooden woolen "
        "velvet marble rusty glossy dusty silken frosty",
    )
)
MOTIONS = {
    "drifts": (1, 0),
    "sways": (-1, 0),
    "hovers": (0, -1),
    "tumbles": (0, 1),
    "glides": (2, 0),
    "wanders": (-2, 0),
    "spirals": (1, 1),
    "soars": (1, -1),
    "sinks": (-1, 1),
    "wafts": (-1, -1),
}
STEPS = {"vae": 720, "clip": 240, "dit": 480}
PROMPT = "an umbrella in Tokyo"


def caption_of(index: int) -> str:
    """The caption of a film."""
    thing, place = THINGS[index % 20], PLACES[(index * 7 + index // 20) % 20]
    look, motion = LOOKS[(index * 3 + index // 20) % 20], list(MOTIONS)[(index + index // 10) % 10]
    article = "an" if look[0] in "aeiou" else "a"
    return f"{article} {look} {thing} {motion} over {place}"


def film_of(index: int) -> Video:
    """A regular polygon that moves over stripes; its corners follow from the thing, the stripes from the
    place.
    """
    words = caption_of(index).split()
    thing, place = THINGS.index(words[2]), PLACES.index(words[5])
    dx, dy = MOTIONS[words[3]]
    rng = np.random.default_rng(place)
    dark, light = rng.integers(20, 100, size=3), rng.integers(140, 235, size=3)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    angle, width = np.pi * place / 20, 6 + place % 5
    stripes = (np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / width) > 0)[..., None]
    ground = np.where(stripes, dark, light).astype(np.uint8)

    colour = np.random.default_rng(1000 + thing).integers(0, 256, size=3).tolist()
    corners, radius = 3 + thing % 6, 16 + 2 * (thing // 6)
    turns = 2 * np.pi * np.arange(corners) / corners
    frames = []
    for frame in range(NUM_FRAMES):
        centre = np.array([SIDE / 2 + dx * (frame - 17), SIDE / 2 + dy * (frame - 17)])
        points = centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        frames.append(cv2.fillPoly(ground.copy(), [points.round().astype(np.int32)], colour))
    return Video(np.stack(frames), FPS)


def run(*words: object) -> np.ndarray:
    """Seconds and processor seconds that a command of kinema takes."""
    started = np.array([time.perf_counter(), time.process_time()])
    code = kinema([str(word) for word in words])
    if code:
        raise SystemExit(f"kinema {' '.join(map(str, words))} ended with {code}")
    return np.array([time.perf_counter(), time.process_time()]) - started


def train(name: str, folder: Path, *settings: str) -> np.ndarray:
    """Seconds and processor seconds of the training of one network with its tiny recipe."""
    options = [option for setting in settings for option in ("--set", setting)]
    steps, out = STEPS[name], folder / "runs" / name
    quiet = ("--set", f"run.save_every={steps}", "--set", f"run.sample_every={steps}")
    recipe = RECIPES / f"{name}_tiny.toml"
    return run("train", recipe, "--data", folder / "ds", "--out", out, "--steps", steps, *quiet, *options)


def measure(folder: Path) -> None:
    """Print the table of one whole course, from films to a generated video."""
    shipped = load_clip(shipped_model()).tokenizer
    captions = [caption_of(index) for index in range(NUM_CLIPS)]
    foreign = {word for text in captions for word in text.split() if word.lower() not in shipped.words}
    for index, text in enumerate(captions):
        film_of(index).save(folder / "clips" / f"{index:02d}.mkv")
        (folder / "clips" / f"{index:02d}.txt").write_text(text)

    small = ("--set", "clips.area=4096", "--set", "dedup.max_bits=-1", "--set", "licence=CC0")
    small += ("--set", "filters.min_motion=0")
    seconds = {"data build": run("data", "build", folder / "clips", "-o", folder / "ds", *small)}
    for name in ("vae", "clip"):
        seconds[name] = train(name, folder)
    parts = [f"{name}={folder / 'runs' / name / 'export'}" for name in ("vae", "clip")]
    seconds["dit"] = train("dit", folder, *parts)
    export = folder / "runs" / "dit" / "export"
    video = folder / "umbrella.mp4"
    seconds["generate"] = run("generate", PROMPT, "--model", export, "-o", video)

    clip = load_clip(export)
    unread = [word for text in (*captions, PROMPT) for word in clip.read_prompt(text).unknown]
    cards = {name: load_card(folder / "runs" / name / "export") for name in ("vae", "clip")}
    seconds["VAE, CLIP and DiT together"] = sum(seconds[name] for name in STEPS)
    print("\n| | |\n|---|---|")
    for name, (wall, processor) in seconds.items():
        print(f"| {name} | {wall:.0f} s, {processor:.0f} processor seconds |")
    print(f"| caption words outside the shipped vocabulary | {len(foreign)} |")
    print(f"| PSNR of the VAE on training clips | {cards['vae']['psnr_training_db']} dB |")
    print(f"| right caption among 8, training clips | {cards['clip']['training']['retrieval_of_8']:.0%} |")
    print(f"| words that the model does not read | {len(unread)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="folder in which films, data set and models are kept")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        measure(arguments.keep)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))


if __name__ == "__main__":
    main()
