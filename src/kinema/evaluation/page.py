"""The report of a benchmark as text and as one HTML page with its videos.

Both benchmarks fill the same sections.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.report import write_page
from kinema.terminal import table

TEMPLATE = Path(__file__).with_name("evaluation.html")


@dataclass(frozen=True)
class Mark:
    """A result below a clip, shown green if it is right and red if it is wrong. `title` is shown on hover."""

    text: str
    is_right: bool
    title: str = ""


@dataclass(frozen=True)
class ClipFigure:
    """A video of the run folder with its prompt and results."""

    file: Path
    prompt: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Section:
    """A part of a report: a note, a table of scores, named lines, and clips, which only the page shows."""

    title: str = ""
    note: str = ""
    is_warning: bool = False
    header: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    lines: Sequence[tuple[str, str]] = ()
    clips: Sequence[ClipFigure] = ()


def sampling_line(report: Mapping[str, Any]) -> str:
    """The model of a report and how its clips were sampled."""
    sampling = report["sampling"]
    frames = f"{sampling['frames']} frames, " if "frames" in sampling else ""
    return (
        f"{report['model']} {report['model_hash']}: {sampling['width']}x{sampling['height']}, {frames}"
        f"{sampling['sampler']}, {sampling['steps']} steps, guidance {sampling['guidance']:g}, "
        f"shift {sampling['shift']:g}"
    )


def report_text(report: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The sections without their clips, as lines of text."""
    return "\n".join([sampling_line(report), *_text_lines(sections)])


def _text_lines(sections: Sequence[Section]) -> Iterator[str]:
    for section in sections:
        if not (section.note or section.rows or section.lines):
            continue
        yield ""
        if section.title:
            yield section.title
        if section.note:
            yield section.note
        if section.rows:
            align = "l" + "r" * (len(section.header) - 1)
            yield table(section.rows, header=section.header, align=align, indent=2)
        yield from (f"{name}: {text}" for name, text in section.lines)


def write_report_page(
    report: Mapping[str, Any], sections: Sequence[Section], out: Path, *, title: str, is_wide: bool = False
) -> Path:
    """`out / "index.html"` with all sections; `is_wide` gives clips more width.

    Raises `OutputError` if it cannot be written.
    """
    values = {
        "title": f"{report['model']} {report['model_hash']}{title}",
        "sampling": sampling_line(report),
        "sections": sections,
        "is_wide": is_wide,
    }
    return write_page(out / "index.html", TEMPLATE, values)
