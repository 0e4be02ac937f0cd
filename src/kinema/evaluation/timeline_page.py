"""The report of the timeline's tasks for people: a table, and one HTML page with truth and result side by side."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from kinema.evaluation.prompts_page import PLAY, STYLE, sampling_line
from kinema.files import atomic_file

COLUMNS = ("median", "share", "asked", "within")
ABOUT = ("cases", "good", "title", "most", "least")
SHOWN = {
    "forward": "truth, result; the frames over green were given",
    "backward": "truth, result; the frames over green were given",
    "connect": "truth, result; the frames over green were given",
    "loop": "the same words without a loop, the loop; both twice over",
    "edit": "the clip with the region, result",
    "long": "truth, windows over latents, plain extension from decoded pixels",
}


def timeline_table(report: Mapping[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [sampling_line(report)]
    for row in report["tasks"].values():
        lines += [
            "",
            _headline(row),
            f"  {'':<12}{'cases':>7}" + "".join(f"{column:>10}" for column in COLUMNS),
        ]
        lines += [
            f"  {name:<12}{num:>7}" + "".join(f"{cell:>10}" for cell in cells)
            for name, num, cells in _rows(row)
        ]
    return "\n".join(lines)


def _headline(row: Mapping[str, Any]) -> str:
    return f"{row['title']}: {row['good']:.0%} of {row['cases']} cases within all limits"


def _rows(row: Mapping[str, Any]) -> Iterator[tuple[str, int, list[str]]]:
    """(name, cases, cells under `COLUMNS`) of every number of a task."""
    for name, figures in row.items():
        if name in ABOUT:
            continue
        limits = [
            f"{sign} {limits[name]:g}"
            for sign, limits in (("<=", row["most"]), (">=", row["least"]))
            if name in limits
        ]
        is_share = "share" in figures
        yield (
            name,
            figures["num"],
            [
                f"{figures['median']:.2f}" if "median" in figures else "",
                f"{figures['share']:.0%}" if is_share else "",
                limits[0] if limits and not is_share else "yes" if limits else "",
                f"{figures['within']:.0%}" if "within" in figures else "",
            ],
        )


def write_timeline_page(report: Mapping[str, Any], out: Path) -> Path:
    """`out / "index.html"`: the figures, and the videos of every case beside the truth."""
    file = out / "index.html"
    with atomic_file(file) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(_page(report, out))
    return file


def _page(report: Mapping[str, Any], out: Path) -> Iterator[str]:
    title = escape(f"{report['model']} {report['model_hash']}: the timeline")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>"
    yield f"<style>{STYLE}.clips {{ grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)) }}</style>"
    yield f"<h1>{title}</h1><p>{escape(sampling_line(report))}</p>\n"
    for name, row in report["tasks"].items():
        yield (
            f"<h2>{escape(_headline(row))}</h2><table><tr><th><th>cases"
            + "".join(f"<th>{column}" for column in COLUMNS)
            + "</tr>\n"
        )
        for number, num, cells in _rows(row):
            yield f"<tr><td>{number}<td>{num}" + "".join(f"<td>{escape(cell)}" for cell in cells) + "</tr>\n"
        yield f"</table><p>Left to right: {SHOWN[name]}.</p><div class=clips>\n"
        yield from (_figure(case, row, out) for case in report["cases"] if case["task"] == name)
        yield "</div>\n"
    yield f"<script>{PLAY}</script></html>\n"


def _figure(case: Mapping[str, Any], row: Mapping[str, Any], out: Path) -> str:
    data = b64encode((out / "clips" / f"{case['name']}.mp4").read_bytes()).decode()
    marks = []
    for name, value in case["numbers"].items():
        if value is None:
            continue
        text = name if isinstance(value, bool) else f"{name} {value:.2f}"
        is_right = (
            value
            if isinstance(value, bool)
            else row["least"].get(name, value) <= value <= row["most"].get(name, value)
        )
        marks.append(f"<span class={'right' if is_right else 'wrong'}>{text}</span>")
    video = f"<video muted loop playsinline preload=metadata src='data:video/mp4;base64,{data}'></video>"
    return f"<figure>{video}<figcaption>{escape(case['prompt'])}<br>{''.join(marks)}</figcaption></figure>\n"
