"""Lists the procedural worlds that training clips are drawn from, and previews their clips and captions."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from kinema.cli.arguments import positive, size
from kinema.config import override
from kinema.registry import lookup

if TYPE_CHECKING:
    from kinema.video import Video


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema worlds`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    names = actions.add_parser(
        "list", help="every world and what it can show", description=list_worlds.__doc__
    )
    names.set_defaults(act=list_worlds)
    look = actions.add_parser(
        "preview", help="draw some clips with their captions", description=preview.__doc__
    )
    look.set_defaults(act=preview)
    look.add_argument("world", metavar="WORLD", help="its name in 'kinema worlds list'")
    look.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=".png for a contact sheet, .mp4, .webm, .mkv or .gif for a grid of clips",
    )
    look.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the first clip; the others count up (default: 0)",
    )
    look.add_argument("--count", type=positive, default=12, metavar="N", help="how many clips (default: 12)")
    look.add_argument(
        "--size",
        type=size,
        default=(128, 128),
        metavar="WxH",
        help="width and height in pixels (default: 128x128)",
    )
    look.add_argument(
        "--frames", type=positive, default=17, metavar="N", help="frames of each clip (default: 17)"
    )
    look.add_argument(
        "--captions",
        default="medium",
        metavar="KIND",
        help="short, medium, detailed, or with _zh in Chinese (default: medium)",
    )
    look.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of the world: max_objects=1",
    )


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema worlds`."""
    arguments.act(arguments)
    return 0


def list_worlds(arguments: argparse.Namespace) -> None:
    """Prints every world and what it can show."""
    from kinema.worlds import WORLDS, WorldConfig, make_world

    for name, entry in WORLDS.items():
        print(f"{name}: {(entry.world_class.__doc__ or '').strip().splitlines()[0]}")
        vocabulary = make_world(WorldConfig.from_table({"name": name})).vocabulary
        for kind, words in vocabulary.items():
            print(f"  {len(words):>3} {kind:<10} {', '.join(words)}")


def preview(arguments: argparse.Namespace) -> None:
    """Draws clips of a world as a contact sheet or, with a video file, side by side in one video."""
    from kinema import video, worlds

    kind = lookup({key: key for key in worlds.CAPTION_KEYS}, arguments.captions, kind="caption")
    settings = override({"name": arguments.world}, arguments.set)
    world = worlds.make_world(worlds.WorldConfig.from_table(settings, ""))
    out = arguments.out or Path(f"{arguments.world}.png")
    ending = lookup(video.video.ENDINGS, out.suffix.lower(), kind="video ending")

    width, height = arguments.size
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    clips = [world.clip(seed, height=height, width=width, num_frames=arguments.frames) for seed in seeds]
    titles = [f"{seed}: {clip.captions[kind]}" for seed, clip in zip(seeds, clips)]
    print("\n".join(titles))

    videos = [video.Video(clip.frames, clip.fps) for clip in clips]
    if ending == "png":
        video.save_image(out, video.contact_sheet(videos, titles, columns=2))
    else:
        tiled(videos).save(out)
    print(out)


def tiled(videos: "list[Video]") -> "Video":
    """Videos of one size, length and rate, tiled into a near-square grid; empty cells are black."""
    import numpy as np
    from einops import rearrange

    columns = math.ceil(math.sqrt(len(videos)))
    rows = math.ceil(len(videos) / columns)
    cells = np.zeros((rows * columns, *videos[0].frames.shape), dtype=np.uint8)
    cells[: len(videos)] = [video.frames for video in videos]
    frames = rearrange(cells, "(rows columns) f h w c -> f (rows h) (columns w) c", rows=rows)
    return type(videos[0])(frames, videos[0].fps)
