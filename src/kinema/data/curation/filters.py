"""Which clips are dropped, and why: each rule a line of a table, cheap because the scores are there already.

A clip's reason is that of the first rule it breaks; it begins with the rule's name, which the funnel counts.
"""

from collections.abc import Callable, Mapping

from kinema.data.curation.recipe import DataRecipe
from kinema.data.dataset import ClipRow


def _below(value: float, least: float, what: str) -> str | None:
    return f"{what} {value:.3g}, at least {least:g}" if value < least else None


def _above(value: float, most: float, what: str) -> str | None:
    return f"{what} {value:.3g}, at most {most:g}" if value > most else None


RULES: Mapping[str, Callable[[ClipRow, DataRecipe], str | None]] = {
    "too short": lambda c, r: (
        None
        if c.is_still or c.num_frames
        else f"{c.end_s - c.start_s:.2f} s, at least {r.clips.min_frames} frames at {r.clips.fps:g} a second"
    ),
    "too small": lambda c, r: (
        _below(min(c.box_height, c.box_width), r.filters.min_side, "shorter side in pixels") or _fits(c)
    ),
    "too few frames a second": lambda c, r: (
        None if c.is_still else _below(c.source_fps, r.filters.min_fps, "rate")
    ),
    "borders": lambda c, r: (
        "has black borders"
        if r.clips.borders == "drop" and c.border > 0
        else _above(c.border, r.filters.max_border, "share of the picture")
    ),
    "too dark": lambda c, r: _below(c.brightness, r.filters.min_brightness, "mean brightness"),
    "too bright": lambda c, r: _above(c.brightness, r.filters.max_brightness, "mean brightness"),
    "too flat": lambda c, r: _below(c.contrast, r.filters.min_contrast, "contrast"),
    "blurred": lambda c, r: _below(c.sharpness, r.filters.min_sharpness, "sharpness"),
    "static": lambda c, r: (
        None if c.is_still else _below(c.motion, r.filters.min_motion, "diagonals a second")
    ),
    "too fast": lambda c, r: (
        None if c.is_still else _above(c.motion, r.filters.max_motion, "diagonals a second")
    ),
}


def _fits(clip: ClipRow) -> str | None:
    return None if clip.height and clip.width else "not one token of the VAE's fits into it"


def reason(clip: ClipRow, recipe: DataRecipe) -> str:
    """Why the clip is dropped, or "" when it is kept."""
    for name, rule in RULES.items():
        said = rule(clip, recipe)
        if said:
            return f"{name}: {said}"
    return ""


def score_reason(scores: Mapping[str, float], recipe: DataRecipe) -> str:
    """Why a clip of these further scores is dropped, or "": its caption does not fit it, or a scorer of the recipe's own says so."""
    least = recipe.agreement.min_caption
    if least is not None and "caption" in scores and (said := _below(scores["caption"], least, "cosine")):
        return f"caption does not fit: {said}"
    for name, rule in recipe.scorers.items():
        low = _below(scores[name], rule.min, "score") if rule.min is not None else None
        high = _above(scores[name], rule.max, "score") if rule.max is not None else None
        if low or high:
            return f"{name}: {low or high}"
    return ""
