"""Which written captions are used: checks of single captions, and the mixture with captions that came with
the files.

The mixture is that of DALL-E 3 (Betker et al. 2023, "Improving Image Generation with Better Captions",
section 3).
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from kinema.data.curation.recipe import CaptionSettings
from kinema.files import content_key

WORDS = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
"""A Chinese character or a run of other letters and digits."""
REFUSAL = re.compile(r"\b(i'?m sorry|i am sorry|i cannot|i can'?t|i'?m unable|as an ai)\b", re.IGNORECASE)
REPEATED_WORDS = 3
"""Length of the word sequences that may occur at most `max_repeats` times."""


class CaptionCandidate(TypedDict):
    """A caption as its writer gives it. Confidence and agreement are None if they are unknown."""

    text: str
    confidence: float | None
    agreement: float | None
    is_whole: bool


def caption_fault(candidate: CaptionCandidate, settings: CaptionSettings) -> str:
    """The first check that a caption fails, as a reason; empty if it passes all."""
    text, confidence, agreement = candidate["text"], candidate["confidence"], candidate["agreement"]
    words = [word.lower() for word in WORDS.findall(text)]
    sequences = Counter(
        tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)
    )

    if REFUSAL.search(text):
        return f"not a caption: {text[:60]}"
    if len(words) < settings.min_words:
        return f"too short: {len(words)} words, at least {settings.min_words}"
    if len(words) > settings.max_words or not candidate["is_whole"]:
        return f"too long: {len(words)} words or cut off, at most {settings.max_words}"
    for sequence, count in sequences.most_common(1):
        if count > settings.max_repeats:
            return f"repeats itself: '{' '.join(sequence)}' {count} times"
    if confidence is not None and confidence < settings.min_confidence:
        return f"unsure: confidence {confidence:.2f}, at least {settings.min_confidence:g}"
    if agreement is not None and agreement < settings.min_agreement:
        return f"does not fit the clip: agreement {agreement:.2f}, at least {settings.min_agreement:g}"
    return ""


def choose_captions(
    original: Mapping[str, str], written: Mapping[str, str], clip_id: str, settings: CaptionSettings
) -> Mapping[str, str]:
    """The captions that a clip is trained with, by form.

    If it has both kinds, the written ones in a `share` of the clips; a hash of the clip decides.
    """
    if not original or not written:
        return written or original

    draw = int(content_key(["mix", settings.seed, clip_id])[:8], 16) / 16**8
    return written if draw < settings.share else original


def refuse_common(
    written: dict[str, dict[str, str]], refused: dict[str, dict[str, str]], settings: CaptionSettings
) -> None:
    """Move captions that too many clips share from `written` to `refused` (clip_id to form to text or
    reason).
    """
    counts = Counter(text for texts in written.values() for text in set(texts.values()))
    max_count = max(settings.always_same, settings.max_same * len(written))
    for clip_id, texts in written.items():
        for form in [form for form, text in texts.items() if counts[text] > max_count]:
            count = counts[texts.pop(form)]
            refused.setdefault(clip_id, {})[form] = f"duplicate: {count} clips have this caption"
