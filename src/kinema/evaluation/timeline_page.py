"""The report of the timeline benchmark: its metrics as text, and a page with truth beside result."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kinema.evaluation.page import ClipFigure, Mark, Section, report_text, write_report_page

COLUMNS = ("metric", "cases", "median", "share", "limit", "within")
SUMMARY_FIELDS = ("cases", "good", "title", "max", "min")
"""The fields of a task's summary that are not metrics."""
KNOWN_CAPTION = "truth, result; frames above green were given"
CAPTIONS = {
    "forward": KNOWN_CAPTION,
    "backward": KNOWN_CAPTION,
    "connect": KNOWN_CAPTION,
    "loop": "non-looping video, loop; both repeated once",
    "edit": "clip with the region, result",
    "long": "truth, windows over latents, plain extension from decoded pixels",
}
"""The videos of a case from left to right."""


def timeline_table(report: Mapping[str, Any]) -> str:
    """The metrics as lines of text."""
    return report_text(report, [_score_section(summary) for summary in report["tasks"].values()])


def write_timeline_page(report: Mapping[str, Any], out: Path) -> Path:
    """`out / "index.html"`: the metrics, and the videos of every case beside the truth."""
    sections: list[Section] = []
    for name, summary in report["tasks"].items():
        clips = [_figure(case, summary, out) for case in report["cases"] if case["task"] == name]
        sections += [
            _score_section(summary),
            Section(note=f"Left to right: {CAPTIONS[name]}.", clips=clips),
        ]
    return write_report_page(report, sections, out, title=": timeline", is_wide=True)


def _score_section(summary: Mapping[str, Any]) -> Section:
    title = f"{summary['title']}: {summary['good']:.0%} of {summary['cases']} cases within all limits"
    return Section(title, header=COLUMNS, rows=list(_rows(summary)))


def _rows(summary: Mapping[str, Any]) -> Iterator[list[object]]:
    for name, scores in summary.items():
        if name in SUMMARY_FIELDS:
            continue
        yield [
            name,
            scores["num"],
            f"{scores['median']:.2f}" if "median" in scores else "",
            f"{scores['share']:.0%}" if "share" in scores else "",
            _limit(summary, name),
            f"{scores['within']:.0%}" if "within" in scores else "",
        ]


def _limit(summary: Mapping[str, Any], name: str) -> str:
    if name not in summary["max"] and name not in summary["min"]:
        return ""
    if "share" in summary[name]:
        return "yes"
    if name in summary["max"]:
        return f"<= {summary['max'][name]:g}"
    return f">= {summary['min'][name]:g}"


def _figure(case: Mapping[str, Any], summary: Mapping[str, Any], out: Path) -> ClipFigure:
    marks = []
    for name, value in case["metrics"].items():
        if isinstance(value, bool):
            marks.append(Mark(name, value))
        elif value is not None:
            low, high = summary["min"].get(name, value), summary["max"].get(name, value)
            marks.append(Mark(f"{name} {value:.2f}", low <= value <= high))
    return ClipFigure(out / "clips" / f"{case['name']}.mp4", case["prompt"], marks)
