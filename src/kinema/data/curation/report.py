"""One HTML page that shows what a build did: funnel, distributions, captions, and clips kept and dropped, to
play.
"""

import base64
import html
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.curation.steps.clip_frames import cropped
from kinema.data.dataset import Dataset
from kinema.errors import KinemaError
from kinema.files import atomic_file, output_errors
from kinema.video import Video
from kinema.video.reading import at_constant_rate
from kinema.video.scanning import read_spans

SHOWN = ("motion", "sharpness", "brightness", "contrast", "border", "source_fps")
BINS = 24
SIDE = 192
"""Longest side of a clip on the page, in pixels."""
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;text-align:left;vertical-align:top}td.n{text-align:right}
.wall{display:flex;flex-wrap:wrap;gap:.8rem}figure{margin:0;width:12.5rem}video{width:100%;background:#000}figcaption{font-size:12px}
svg{background:#f6f6f6}rect{fill:#3b6ea5}.bad{color:#a33}@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}svg{background:#222}}"""


def write_report(folder: Path, out: Path, *, examples: int = 12) -> Path:
    """The path of the page about the data set in `folder`, with at most `examples` clips of each kind to
    play.

    A clip is shown as its file has it now; one whose file is gone is named without a picture.
    """
    dataset = Dataset(folder)
    clips, sources = dataset.clips.to_pylist(), dataset.sources.to_pylist()
    paths = {row["source_id"]: Path(row["path"]) for row in reversed(sources)}
    kept = [row for row in clips if row["verdict"] == "kept"]
    dropped = [row for row in clips if row["verdict"] != "kept"]
    seen: Counter[str] = Counter()
    varied: list[dict[str, Any]] = []  # examples of every reason rather than many of the first
    for row in dropped:
        kind = row["reason"].split(":")[0]
        if seen[kind] < max(1, examples // 4) and len(varied) < examples:
            seen[kind] += 1
            varied.append(row)
    spread = (
        [kept[i] for i in sorted({int(i) for i in np.linspace(0, len(kept) - 1, min(examples, len(kept)))})]
        if kept
        else []
    )
    repeated = [row for row in dropped if row["reason"].startswith("duplicate")][:examples]
    bad = [row for row in sources if row["verdict"] != "used"]
    parts = [
        f"<h1>{_text(folder.name)}</h1><p>{len(kept)} clips of {len(sources)} files; VAE: {_text(dataset.card['vae']['name'])}.</p>",
        "<h2>Funnel</h2>" + _funnel(dataset.card["funnel"]),
        "<h2>Distributions</h2><p>All clips; the kept ones below.</p><div class=wall>",
        *(_histogram(name, [row[name] for row in clips], [row[name] for row in kept]) for name in SHOWN),
        "</div><h2>Sizes and lengths</h2>"
        + _counts(Counter(f"{r['width']} x {r['height']}, {r['num_frames']} frames" for r in kept)),
        "<h2>Captions</h2>" + _captions(kept),
        "<h2>Kept</h2><div class=wall>" + "".join(_figure(row, paths) for row in spread) + "</div>",
        "<h2>Dropped</h2><div class=wall>" + "".join(_figure(row, paths) for row in varied) + "</div>",
        "<h2>Duplicates</h2>"
        + (_list(f"{r['name']} at {r['start_s']:.2f} s: {r['reason']}" for r in repeated) or "<p>none</p>"),
        "<h2>Files not used</h2>" + (_list(f"{r['name']}: {r['reason']}" for r in bad) or "<p>none</p>"),
        f"<h2>Recipe</h2><pre>{_text(json.dumps(dataset.card['recipe'], indent=1))}</pre>",
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(folder.name)}</title><style>{STYLE}</style>{''.join(parts)}</html>"
    with atomic_file(out) as partial, output_errors(out):
        partial.write_text(page, encoding="utf-8")
    return out


def _figure(row: dict[str, Any], paths: dict[str, Path]) -> str:
    """A clip to play, with what is said of it."""
    caption = next(iter(json.loads(row["captions"]).values()), "")
    said = f"<b>{_text(row['clip_id'])}</b> {_text(row['name'])} {row['start_s']:.2f} to {row['end_s']:.2f} s"
    said += f"<br><span class=bad>{_text(row['reason'])}</span>" if row["reason"] else f"<br>{_text(caption)}"
    try:
        movie = f"<video controls loop muted preload=metadata src='data:video/mp4;base64,{_movie(row, paths[row['source_id']])}'></video>"
    except (KinemaError, OSError, KeyError) as error:
        movie = f"<p class=bad>not to be shown: {_text(str(error))}</p>"
    return f"<figure>{movie}<figcaption>{said}</figcaption></figure>"


def _movie(row: dict[str, Any], path: Path) -> str:
    """The clip as a small .mp4, base64."""
    box = row["box_top"], row["box_left"], row["box_height"], row["box_width"]
    scale = min(1.0, SIDE / max(box[2:]))
    size = max(2, round(box[2] * scale / 2) * 2), max(2, round(box[3] * scale / 2) * 2)
    frames = next(
        read_spans(
            path, [(row["start_s"], row["end_s"])], lambda index, pixels: cropped(pixels, {"box": box}, *size)
        )
    )
    rate = min(row["fps"], row["source_fps"])
    timed = ((frame.time_s, frame.duration_s, frame.pixels) for frame in frames)
    with tempfile.TemporaryDirectory() as folder:
        file = Video(np.stack(list(at_constant_rate(timed, rate, row["source_fps"]))), rate).save(
            Path(folder) / "clip.mp4", quality=28
        )
        return base64.b64encode(file.read_bytes()).decode()


def _funnel(stages: Sequence[tuple[str, int, dict[str, int]]]) -> str:
    lines = []
    for name, left, reasons in stages:
        lines.append(f"<tr><td class=n><b>{left}</b><td><b>{_text(name)}</b>")
        ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
        lines += [f"<tr><td class=n>{-count}<td>{_text(reason)}" for reason, count in ordered]
    return f"<table>{''.join(lines)}</table>"


def _histogram(name: str, values: list[float], kept: list[float]) -> str:
    """Two rows of bars over one axis, which ends at the 99th percentile."""
    if not values:
        return ""
    low, high = float(min(values)), float(np.percentile(values, 99))
    high = high if high > low else low + 1
    rows = []
    for at, numbers in ((0, values), (45, kept)):
        counts = np.histogram(np.clip(numbers, low, high), BINS, (low, high))[0]
        tallest = max(1, int(counts.max()))
        rows += [
            f"<rect x={8 * i} y={at + 40 - 40 * c / tallest:.1f} width=7 height={40 * c / tallest:.1f} />"
            for i, c in enumerate(counts)
        ]
    return f"<figure><svg width=192 height=86>{''.join(rows)}</svg><figcaption>{name}: {low:.3g} to {high:.3g}</figcaption></figure>"


def _captions(kept: list[dict[str, Any]]) -> str:
    texts = [text for row in kept for text in json.loads(row["captions"]).values()]
    if not texts:
        return "<p>none: put clip.txt beside clip.mp4, or a captions.csv with path and caption into the folder</p>"
    words = Counter(word for text in texts for word in text.lower().split())
    most = ", ".join(f"{_text(word)} {count}" for word, count in words.most_common(30))
    lengths = [len(text.split()) for text in texts]
    same = len(texts) - len(set(texts))
    counted = f"{len(texts)} captions, {np.mean(lengths):.1f} words on average, {min(lengths)} to {max(lengths)}; {same} repeat another."
    return f"<p>{counted} {most}</p>"


def _counts(counts: Counter[str]) -> str:
    return (
        "<table>"
        + "".join(f"<tr><td class=n>{count}<td>{_text(name)}" for name, count in counts.most_common())
        + "</table>"
    )


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(line)}" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _text(value: object) -> str:
    return html.escape(str(value))
