"""The files of a result: the video, its contact sheet and notes, and for a long one its quality report."""

from pathlib import Path

from kinema.files import atomic_file, output_errors, write_json
from kinema.generation.output.quality import plot_quality
from kinema.generation.result import Result
from kinema.video import contact_sheet, save_image

SHEET_METADATA = {"software": "kinema contact sheet"}
"""Metadata of a contact sheet, which tells one that may be overwritten from a picture of the user's."""


def write_artifacts(result: Result, path: Path, *, sheet: Path | None = None) -> list[Path]:
    """Write a result to `path` with everything that accompanies it, and return the files, the video first.

    A video that was written there while it was decoded is not written again. `sheet` is the .png file of the
    contact sheet; None writes no sheet. A video of several windows has its quality report beside it in
    `.drift.json`, plotted in `.drift.png`. How inputs were fitted, words that the model reads differently and
    warnings are in `.notes.txt`, if there are any. Raises the errors of `Video.save`, and `OutputError` if a
    file cannot be written.
    """
    files = [path if result.path == path else result.save(path)]
    if sheet is not None:
        picture = contact_sheet([result.video], [result.plan.request.prompt or "without words"])
        files.append(save_image(sheet, picture, metadata=SHEET_METADATA))

    if "windows" in result.report:
        files.append(save_image(path.with_suffix(".drift.png"), plot_quality(result.report)))
        report = path.with_suffix(".drift.json")
        write_json(report, result.report)
        files.append(report)

    given = (*result.notes, result.prompt.text, result.object_line, *result.warnings)
    if lines := [line for line in given if line]:
        notes = path.with_suffix(".notes.txt")
        with atomic_file(notes) as partial, output_errors(notes):
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        files.append(notes)
    return files
