"""The HTML report of a data set: funnel, distributions, captions, and playable clips, kept and dropped."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kinema.data.curation.funnel import FunnelRow
from kinema.data.curation.steps.clip_frames import cropped
from kinema.data.dataset import Dataset
from kinema.errors import KinemaError
from kinema.report import plot_svg, video_url, write_page
from kinema.video import Video
from kinema.video.reading import at_constant_rate
from kinema.video.scanning import read_spans

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = Path(__file__).parent / "report.html"
PLOTTED = {
    "motion": "motion, frame diagonals per second",
    "sharpness": "sharpness, variance of the Laplacian",
    "brightness": "brightness, 0 to 1",
    "contrast": "contrast, 0 to 1",
    "border": "black border, share of the frame",
    "source_fps": "rate of the source, frames per second",
}
"""Columns of which a histogram is drawn, with the label of the axis."""
NUM_BINS = 24
MAX_SIDE_PX = 192
"""Longest side of a clip on the page."""
NUM_WORDS = 30
"""Most frequent words of the captions that are listed."""

Row = dict[str, Any]
"""A row of the table of clips."""


class Example(NamedTuple):
    """A clip on the page: its row, first caption, and video as a data URL, or why it cannot be shown."""

    row: Row
    caption: str
    url: str
    error: str


@dataclass(frozen=True)
class CaptionStatistics:
    """One line about all captions, and their most frequent words with counts."""

    summary: str
    words: list[tuple[str, int]]


def write_report(folder: Path, out: Path, *, examples: int = 12) -> Path:
    """The path `out` of the page about the data set in `folder`, with at most `examples` clips of each kind.

    A clip is shown as its file is now; if the file is gone, the clip is listed without a video. Raises
    `DataError` if the data set cannot be read and `OutputError` if the page cannot be written.
    """
    dataset = Dataset(folder)
    clips, sources = dataset.clips.to_pylist(), dataset.sources.to_pylist()
    paths = {row["source_id"]: Path(row["path"]) for row in reversed(sources)}
    kept = [row for row in clips if row["verdict"] == "kept"]
    dropped = [row for row in clips if row["verdict"] != "kept"]
    repeated = [row for row in dropped if row["reason"].startswith("duplicate")]
    sizes = Counter(f"{row['width']} x {row['height']}, {row['num_frames']} frames" for row in kept)

    values = {
        "title": folder.name,
        "num_kept": len(kept),
        "num_files": len(sources),
        "vae": dataset.card["vae"]["name"],
        "funnel": [FunnelRow(*row) for row in dataset.card["funnel"]],
        "plots": [_histogram(name, clips, kept) for name in PLOTTED] if clips else [],
        "sizes": sizes.most_common(),
        "captions": _caption_statistics(kept),
        "kept": [_example(row, paths) for row in _evenly_spaced(kept, examples)],
        "dropped": [_example(row, paths) for row in _varied(dropped, examples)],
        "duplicates": [
            f"{row['name']} at {row['start_s']:.2f} s: {row['reason']}" for row in repeated[:examples]
        ],
        "unused": [f"{row['name']}: {row['reason']}" for row in sources if row["verdict"] != "used"],
        "recipe": json.dumps(dataset.card["recipe"], indent=1),
    }
    return write_page(out, TEMPLATE, values)


def _evenly_spaced(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, evenly spread."""
    if not rows:
        return []
    return [rows[int(i)] for i in np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def _varied(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, at most a quarter of them with the same kind of reason."""
    num_of_kind: Counter[str] = Counter()
    varied: list[Row] = []
    for row in rows:
        kind = row["reason"].split(":")[0]
        if num_of_kind[kind] < max(1, count // 4) and len(varied) < count:
            num_of_kind[kind] += 1
            varied.append(row)
    return varied


def _example(row: Row, paths: dict[str, Path]) -> Example:
    caption = next(iter(json.loads(row["captions"]).values()), "")
    try:
        return Example(row, caption, video_url(_video(row, paths[row["source_id"]])), "")
    except (KinemaError, OSError, KeyError) as error:
        return Example(row, caption, "", str(error))


def _video(row: Row, path: Path) -> Video:
    """The clip with no side above `MAX_SIDE_PX`, at most at the rate of its source."""
    box = row["box_top"], row["box_left"], row["box_height"], row["box_width"]
    scale = min(1.0, MAX_SIDE_PX / max(box[2:]))
    height, width = (max(2, round(side * scale / 2) * 2) for side in box[2:])
    span = (row["start_s"], row["end_s"])
    frames = next(read_spans(path, [span], lambda _, pixels: cropped(pixels, {"box": box}, height, width)))

    rate = min(row["fps"], row["source_fps"])
    timed = ((frame.time_s, frame.duration_s, frame.pixels) for frame in frames)
    return Video(np.stack(list(at_constant_rate(timed, rate, row["source_fps"]))), rate)


def _histogram(name: str, clips: Sequence[Row], kept: Sequence[Row]) -> "Markup":
    """A histogram of a column of all clips and of the kept ones."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    values = [float(row[name]) for row in clips]
    low, high = min(values), float(np.percentile(values, 99))
    high = high if high > low else low + 1
    bins = np.linspace(low, high, NUM_BINS + 1).tolist()

    figure = Figure(figsize=(3.6, 2.4), layout="constrained")
    axes = figure.add_subplot(xlabel=PLOTTED[name], ylabel="clips")
    axes.hist(np.clip(values, low, high), bins, color="#b8cbdc", label="all")
    axes.hist(np.clip([row[name] for row in kept], low, high), bins, color="#3b6ea5", label="kept")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return plot_svg(figure)


def _caption_statistics(kept: Sequence[Row]) -> CaptionStatistics | None:
    """Statistics of all captions of the kept clips; None if there are none."""
    texts = [text for row in kept for text in json.loads(row["captions"]).values()]
    if not texts:
        return None

    lengths = [len(text.split()) for text in texts]
    num_repeated = len(texts) - len(set(texts))
    words = Counter(word for text in texts for word in text.lower().split())
    return CaptionStatistics(
        f"{len(texts)} captions, {np.mean(lengths):.1f} words on average, {min(lengths)} to {max(lengths)}; "
        f"{num_repeated} repeat another.",
        words.most_common(NUM_WORDS),
    )
