"""Captions video files, a line each, with the vocabulary of the world that the captioner was trained on.

The captioner reads the start of each file (two seconds with the captioner in the package). Files may have any
size.
"""

import argparse
import json
from pathlib import Path

from kinema.errors import RequestError, VideoError

MAX_FPS = 16.0
"""Faster files are thinned to this rate: the captioner reads no more frames, and memory is limited."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kinema caption`."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="video files of any common kind")
    parser.add_argument(
        "--style",
        choices=("short", "medium", "detailed"),
        default="medium",
        help="length of the caption (default: medium)",
    )
    parser.add_argument(
        "--language", choices=("en", "zh"), default="en", help="language of the caption (default: en)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object for each file: path, caption, confidence, seconds that were read",
    )
    parser.add_argument(
        "--model",
        default="shipped",
        metavar="DIR",
        help="a captioner trained with recipes/captioner.toml (default: the one in the package)",
    )


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema caption`."""
    from kinema.checkpoints.captioner import CaptionerRunner
    from kinema.video import Video, scanning

    runner = CaptionerRunner.load(arguments.model)
    form = arguments.style + ("_zh" if arguments.language == "zh" else "")
    span_s = runner.captioner.config.num_frames / runner.oracle.config.fps

    for file in arguments.files:
        fps = min(scanning.read_header(file).fps, MAX_FPS)
        video = Video.read(file, fps=fps, max_frames=max(1, round(fps * span_s)))
        try:
            written = runner.caption(video.frames, video.fps, form)
        except RequestError as error:
            raise VideoError(f"{file}: {error}") from None

        if arguments.json:
            values = {
                "path": str(file),
                "caption": written.text,
                "confidence": round(written.confidence, 4),
                "style": arguments.style,
                "language": arguments.language,
                "seconds": round(video.duration_s, 3),
                "captioner": runner.weights,
            }
            print(json.dumps(values, ensure_ascii=False))
        elif len(arguments.files) > 1:
            print(f"{file}: {written.text}")
        else:
            print(written.text)
    return 0
