"""The report of the prompts benchmark: its scores as text and as a page with all clips."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kinema.evaluation.page import ClipFigure, Mark, Section, report_text, write_report_page

TITLES = {"held_out": "held-out combinations", "seen": "seen combinations"}
COLUMNS = ("model", "relative", "ceiling", "floor")


def prompts_table(report: Mapping[str, Any]) -> str:
    """The scores as lines of text, or the reason why there are no relative scores."""
    return report_text(report, [*_score_sections(report), _oracle_section(report), _other_section(report)])


def write_prompts_page(report: Mapping[str, Any], out: Path) -> Path:
    """`out / "index.html"`: the scores, and every clip with its prompt and its right and wrong slots."""
    sections = [
        _oracle_section(report),
        *_score_sections(report),
        _other_section(report, "Physics, VAE and CLIP"),
        *_clip_sections(report, out),
    ]
    return write_report_page(report, sections, out, title="")


def _oracle_section(report: Mapping[str, Any]) -> Section:
    failures = report["oracle"]["failures"]
    if failures:
        reasons = "; ".join(failures)
        return Section(
            note=f"No relative scores: the oracle is too inaccurate here ({reasons})", is_warning=True
        )

    accuracy = report["oracle"]["trust"]
    lowest = [
        f"at least {min(accuracy[kind].values()):.1%} right in each slot of {accuracy[f'num_{kind}']} {title}"
        for kind, title in (("fresh", "fresh renders"), ("round_trip", "VAE round trips"))
    ]
    return Section(note=f"The oracle is accurate enough: {', '.join(lowest)}.")


def _score_sections(report: Mapping[str, Any]) -> Iterator[Section]:
    for split, found in report["splits"].items():
        rows = [
            [slot, row["num"], *(f"{row[column]:.1%}" if column in row else "-" for column in COLUMNS)]
            for slot, row in found["slots"].items()
        ]
        title = f"{TITLES[split].capitalize()}, {found['num']} prompts"
        yield Section(title, header=("slot", "prompts", *COLUMNS), rows=rows)


def _other_section(report: Mapping[str, Any], title: str = "") -> Section:
    lines = [
        (law, row if isinstance(row, str) else _law_text(law, row)) for law, row in report["physics"].items()
    ]

    flicker = report["flicker"]
    if flicker["model"] is not None:
        text = f"{flicker['model']:.2f} of 255 where nothing moves (renderer: {flicker['ceiling']:.2f})"
        lines.append(("flicker", text))

    vae = report["vae"]
    real = f"; {vae['real_clip_psnr_db']:.1f} dB on the real clip" if "real_clip_psnr_db" in vae else ""
    lines.append(("VAE", f"{vae['psnr_db']:.1f} dB on {vae['num']} {TITLES[vae['split']]}{real}"))

    if "clip" not in report:
        return Section(title, lines=lines)
    clip = report["clip"]
    foils = ", ".join(
        f"{name.removeprefix('foil_')} {share:.0%}"
        for name, share in clip.items()
        if name.startswith("foil_")
    )
    text = (
        f"retrieves its caption among 32 in {clip['retrieval_of_32']:.1%} "
        f"and prefers it to foils in {clip['foil']:.1%} ({foils})"
    )
    lines.append(("CLIP", text))
    return Section(title, lines=lines)


def _law_text(law: str, row: Mapping[str, Any]) -> str:
    text = (
        f"kept in {row['model']:.1%} of {row['num']} clips "
        f"(renderer: {row['ceiling']:.1%}, after the VAE {row['after_vae']:.1%})"
    )
    if law == "gravity" and row["median_gravity"] is not None:
        text += f"; {row['num_fitted']} can be fitted, "
        text += f"median {row['median_gravity']:.2f} (world: {row['world_gravity']:.2f})"
        for verb in ("bounce", "fall"):
            found = row[f"{verb}_restitution"]
            if found["median"] is not None:
                low, high = found["world"]
                text += f", restitution of a {verb} {found['median']:.2f} (world: {low} to {high})"

    if law == "rolling":
        text += f"; {row['num_read']} can be read"
        if row["median_ratio"] is not None:
            text += f", median turn {row['median_ratio']:.2f} of rolling"
    return text


def _clip_sections(report: Mapping[str, Any], out: Path) -> Iterator[Section]:
    for split in report["splits"]:
        clips = [
            ClipFigure(out / "clips" / f"{clip['name']}.mp4", clip["prompt"], _marks(clip))
            for clip in report["clips"]
            if clip["split"] == split
        ]
        yield Section(f"Clips of {TITLES[split]}", clips=clips)


def _marks(clip: Mapping[str, Any]) -> list[Mark]:
    marks = []
    for slot, is_right in clip["right"].items():
        true, read = clip["truth"][slot], clip["read"][slot]
        marks.append(Mark(true if is_right else f"{read}, not {true}", is_right, title=slot))
    return marks
