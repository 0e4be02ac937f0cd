"""Says what happens in video files, a line each, in the words of the world that the captioner was trained on.

It reads a stretch from the beginning of each file (two seconds with the captioner of the package); any size will do.
"""

import argparse
import json
from pathlib import Path

MOST_FPS = 16.0
"""Frames of faster files are left out: no more are looked at, and they would only fill memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="video files of any common kind")
    parser.add_argument(
        "--style",
        choices=("short", "medium", "detailed"),
        default="medium",
        help="how much to say (default: medium)",
    )
    parser.add_argument(
        "--language", choices=("en", "zh"), default="en", help="English or Chinese (default: en)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="an object a file: path, caption, confidence, how much of the file was looked at",
    )
    parser.add_argument(
        "--model",
        default="shipped",
        metavar="DIR",
        help="the export of kinema train recipes/captioner.toml (default: the one in the package)",
    )


def run(arguments: argparse.Namespace) -> int:
    from kinema.data.curation.captioner_runner import CaptionerRunner
    from kinema.errors import RequestError, VideoError
    from kinema.video import Video
    from kinema.video.scanning import read_header

    runner = CaptionerRunner.load(arguments.model)
    form = arguments.style + ("_zh" if arguments.language == "zh" else "")
    span_s = runner.captioner.config.num_frames / runner.oracle.config.fps
    for file in arguments.files:
        fps = min(read_header(file).fps, MOST_FPS)
        video = Video.read(file, fps=fps, max_frames=max(1, round(fps * span_s)))
        try:
            written = runner.caption(video.frames, video.fps, form)
        except RequestError as error:
            raise VideoError(f"{file}: {error}") from None
        if arguments.json:
            said = {
                "path": str(file),
                "caption": written.text,
                "confidence": round(written.confidence, 4),
                "style": arguments.style,
            }
            said |= {
                "language": arguments.language,
                "seconds": round(video.duration_s, 3),
                "captioner": runner.weights,
            }
            print(json.dumps(said, ensure_ascii=False))
        else:
            print(f"{file}: {written.text}" if len(arguments.files) > 1 else written.text)
    return 0
