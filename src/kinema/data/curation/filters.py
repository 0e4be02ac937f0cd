"""The filters of clips: each rule is a row of a table, and cheap because the scores exist already.

The reason of a dropped clip is the first rule that it breaks. It starts with the rule's name, which the
funnel counts.
"""

from collections.abc import Callable, Mapping

from kinema.data.curation.recipe import DataRecipe
from kinema.data.dataset import ClipRow


def _below(value: float, minimum: float, what: str) -> str | None:
    return f"{what} {value:.3g}, at least {minimum:g}" if value < minimum else None


def _above(value: float, maximum: float, what: str) -> str | None:
    return f"{what} {value:.3g}, at most {maximum:g}" if value > maximum else None


def _too_short(clip: ClipRow, recipe: DataRecipe) -> str | None:
    if clip.is_still or clip.num_frames:
        return None
    limits = recipe.clips
    return (
        f"{clip.end_s - clip.start_s:.2f} s, at least {limits.min_frames} frames at {limits.fps:g} a second"
    )


def _too_small(clip: ClipRow, recipe: DataRecipe) -> str | None:
    side = min(clip.box_height, clip.box_width)
    if side < recipe.filters.min_side:
        return _below(side, recipe.filters.min_side, "shorter side in pixels")
    return None if clip.height and clip.width else "not one token of the VAE's fits into it"


def _borders(clip: ClipRow, recipe: DataRecipe) -> str | None:
    if recipe.clips.borders == "drop" and clip.border > 0:
        return "has black borders"
    return _above(clip.border, recipe.filters.max_border, "share of the picture")


CLIP_RULES: Mapping[str, Callable[[ClipRow, DataRecipe], str | None]] = {
    "too short": _too_short,
    "too small": _too_small,
    "too few frames a second": lambda c, r: (
        None if c.is_still else _below(c.source_fps, r.filters.min_fps, "rate")
    ),
    "borders": _borders,
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
"""Rules by name: from a clip to the detail of the reason, or None if the clip keeps the rule."""


def drop_reason(clip: ClipRow, recipe: DataRecipe) -> str:
    """Why the filters drop the clip; empty if they keep it."""
    for name, rule in CLIP_RULES.items():
        detail = rule(clip, recipe)
        if detail:
            return f"{name}: {detail}"
    return ""


def score_drop_reason(scores: Mapping[str, float], recipe: DataRecipe) -> str:
    """Why a clip with these further scores is dropped; empty if it is kept.

    "caption" is the cosine of the clip and its best caption; the others are scores of the recipe's functions
    by name.
    """
    min_caption = recipe.agreement.min_caption
    if min_caption is not None and "caption" in scores:
        detail = _below(scores["caption"], min_caption, "cosine")
        if detail:
            return f"caption does not fit: {detail}"

    for name, rule in recipe.scorers.items():
        low = _below(scores[name], rule.min, "score") if rule.min is not None else None
        high = _above(scores[name], rule.max, "score") if rule.max is not None else None
        if low or high:
            return f"{name}: {low or high}"
    return ""
