"""The report of an evaluation for people: a table, and one HTML page with the videos in it that needs no other file."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from kinema.files import atomic_file

TITLES = {"held_out": "held-out combinations", "seen": "seen combinations"}
COLUMNS = ("model", "relative", "ceiling", "floor")


def prompts_table(report: Mapping[str, Any]) -> str:
    """The figures as lines of text; where relative figures are refused, why."""
    return "\n".join(_lines(report))


def sampling_line(report: Mapping[str, Any]) -> str:
    """Which model a report is of, and how its clips were sampled."""
    sampling = report["sampling"]
    frames = f"{sampling['frames']} frames, " if "frames" in sampling else ""
    return (
        f"{report['model']} {report['model_hash']}: {sampling['width']}x{sampling['height']}, {frames}"
        f"{sampling['sampler']}, {sampling['steps']} steps, guidance {sampling['guidance']:g}, shift {sampling['shift']:g}"
    )


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield sampling_line(report)
    for split, found in report["splits"].items():
        yield ""
        yield f"{TITLES[split]}, {found['num']} prompts"
        yield f"  {'':<12}{'prompts':>8}" + "".join(f"{column:>10}" for column in COLUMNS)
        for slot, row in found["slots"].items():
            cells = "".join(f"{row[column]:>10.1%}" if column in row else f"{'-':>10}" for column in COLUMNS)
            yield f"  {slot:<12}{row['num']:>8}{cells}"
    yield ""
    if report["oracle"]["failures"]:
        yield "no relative figures, for the oracle cannot be trusted here: " + "; ".join(
            report["oracle"]["failures"]
        )
    else:
        yield f"the oracle may be trusted here: {_trust(report)}"
    yield from (f"{name}: {text}" for name, text in _rest(report))


def _trust(report: Mapping[str, Any]) -> str:
    trust = report["oracle"]["trust"]
    return ", ".join(
        f"at least {min(trust[kind].values()):.1%} right in every slot of {trust[f'num_{kind}']} {title}"
        for kind, title in (("fresh", "fresh renders"), ("round_trip", "VAE round trips"))
    )


def _rest(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, figures) of all that is not a slot."""
    for law, row in report["physics"].items():
        if isinstance(row, str):
            yield law, row
            continue
        text = f"kept in {row['model']:.1%} of {row['num']} clips (renderer: {row['ceiling']:.1%}, after the VAE {row['after_vae']:.1%})"
        if law == "gravity" and row["median_gravity"] is not None:
            text += f"; {row['num_fitted']} can be fitted, median {row['median_gravity']:.2f} (world: {row['world_gravity']:.2f})"
            for verb in ("bounce", "fall"):
                found = row[f"{verb}_restitution"]
                if found["median"] is not None:
                    text += f", restitution of a {verb} {found['median']:.2f} (world: {found['world'][0]} to {found['world'][1]})"
        if law == "rolling":
            median = (
                "" if row["median_ratio"] is None else f", median turn {row['median_ratio']:.2f} of rolling"
            )
            text += f"; {row['num_read']} can be read{median}"
        yield law, text
    flicker = report["flicker"]
    if flicker["model"] is not None:
        yield (
            "flicker",
            f"{flicker['model']:.2f} of 255 a frame where nothing moves (renderer: {flicker['ceiling']:.2f})",
        )
    vae, clip = report["vae"], report["clip"]
    real = f"; {vae['real_clip_psnr_db']:.1f} dB on the real clip" if "real_clip_psnr_db" in vae else ""
    yield "VAE", f"{vae['psnr_db']:.1f} dB on {vae['num']} {TITLES[vae['split']]}{real}"
    foils = ", ".join(
        f"{name.removeprefix('foil_')} {share:.0%}"
        for name, share in clip.items()
        if name.startswith("foil_")
    )
    yield (
        "CLIP",
        f"finds its caption among 32 in {clip['retrieval_of_32']:.1%} and tells foils in {clip['foil']:.1%} ({foils})",
    )


def write_prompts_page(report: Mapping[str, Any], out: Path) -> Path:
    """`out / "index.html"`: the figures, and every clip of `out / "clips"` with its prompt and what is right and wrong in it."""
    file = out / "index.html"
    with atomic_file(file) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(_page(report, out))
    return file


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; background: #fafafa }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .9rem; text-align: right } td:first-child { text-align: left }
tr:nth-child(even) { background: #f0f0f0 }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
figure { margin: 0; padding: .6rem; background: #fff; border: 1px solid #ddd; border-radius: .4rem }
video { width: 100%; image-rendering: pixelated } figcaption { font-size: .85rem }
.right, .wrong { display: inline-block; border-radius: .3rem; padding: 0 .4rem; margin: .1rem .1rem 0 0 }
.right { background: #d8f0d8 } .wrong { background: #f8d4d0 } .refused { background: #fff0c8; padding: .6rem }
"""
PLAY = """
const seen = new IntersectionObserver(entries => entries.forEach(e => e.isIntersecting ? e.target.play() : e.target.pause()));
document.querySelectorAll("video").forEach(video => seen.observe(video));
"""


def _page(report: Mapping[str, Any], out: Path) -> Iterator[str]:
    title = escape(f"{report['model']} {report['model_hash']}")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>"
    yield f"<style>{STYLE}</style><h1>{title}</h1><p>{escape(sampling_line(report))}</p>\n"
    if report["oracle"]["failures"]:
        yield f"<p class=refused>No relative figures: {escape('; '.join(report['oracle']['failures']))}</p>\n"
    else:
        yield f"<p>The oracle may be trusted here: {escape(_trust(report))}.</p>\n"
    for split, found in report["splits"].items():
        yield f"<h2>{TITLES[split].capitalize()}, {found['num']} prompts</h2><table><tr><th><th>prompts"
        yield "".join(f"<th>{column}" for column in COLUMNS) + "</tr>\n"
        for slot, row in found["slots"].items():
            cells = "".join(f"<td>{row[column]:.1%}" if column in row else "<td>–" for column in COLUMNS)
            yield f"<tr><td>{slot}<td>{row['num']}{cells}</tr>\n"
        yield "</table>\n"
    yield "<h2>Physics, VAE and CLIP</h2><dl>"
    yield from (f"<dt><b>{escape(name)}</b><dd>{escape(text)}\n" for name, text in _rest(report))
    yield "</dl>\n"
    for split in report["splits"]:
        yield f"<h2>Clips of {TITLES[split]}</h2><div class=clips>\n"
        yield from (_figure(clip, out) for clip in report["clips"] if clip["split"] == split)
        yield "</div>\n"
    yield f"<script>{PLAY}</script></html>\n"


def _figure(clip: Mapping[str, Any], out: Path) -> str:
    data = b64encode((out / "clips" / f"{clip['name']}.mp4").read_bytes()).decode()
    marks = []
    for slot, right in clip["right"].items():
        wanted, read = escape(clip["truth"][slot]), escape(clip["read"][slot])
        marks.append(
            f"<span class=right>{wanted}</span>"
            if right
            else f"<span class=wrong title='{slot}'>{read}, not {wanted}</span>"
        )
    video = f"<video muted loop playsinline preload=metadata src='data:video/mp4;base64,{data}'></video>"
    return f"<figure>{video}<figcaption>{escape(clip['prompt'])}<br>{''.join(marks)}</figcaption></figure>\n"
