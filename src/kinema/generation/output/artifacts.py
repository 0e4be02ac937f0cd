"""The files that accompany a result: a contact sheet, and for a long video its quality report and plot."""

from pathlib import Path

from kinema.files import write_json
from kinema.generation.output.quality import plot_quality
from kinema.generation.result import Result
from kinema.video import contact_sheet, save_image

SHEET_METADATA = {"software": "kinema contact sheet"}
"""Metadata of a contact sheet, which tells one that may be overwritten from a picture of the user's."""


def write_artifacts(result: Result, path: Path, *, sheet: Path | None = None) -> list[Path]:
    """Write everything that accompanies the video at `path`, and return the files.

    `sheet` is the .png file of the contact sheet; None writes no sheet. A video of several windows has its
    quality report beside it in `.drift.json`, plotted in `.drift.png`. Raises `OutputError` if a file cannot
    be written.
    """
    files = []
    if sheet is not None:
        picture = contact_sheet([result.video], [result.plan.request.prompt or "without words"])
        files.append(save_image(sheet, picture, metadata=SHEET_METADATA))

    if "windows" in result.report:
        files.append(save_image(path.with_suffix(".drift.png"), plot_quality(result.report)))
        report = path.with_suffix(".drift.json")
        write_json(report, result.report)
        files.append(report)
    return files
