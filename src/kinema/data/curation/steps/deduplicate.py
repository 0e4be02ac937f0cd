"""Step 4: drop clips that show the same pixels as another clip."""

from collections.abc import Mapping, Sequence

from kinema.data.curation.dedup import ClipSignature, duplicates
from kinema.data.curation.recipe import DedupSettings
from kinema.data.dataset import ClipRow


def drop_duplicates(
    clips: Sequence[ClipRow], signatures: Mapping[str, ClipSignature], settings: DedupSettings
) -> list[ClipRow]:
    """The rows of the clips; of clips that show the same, the one with the most pixels is kept."""
    ordered = [signatures[clip.clip_id] for clip in largest_first(clips)]
    original_of = dict(duplicates(ordered, settings))
    labels = {clip.clip_id: clip.label for clip in clips}

    rows = []
    for clip in clips:
        original = original_of.get(clip.clip_id)
        rows.append(
            clip if original is None else clip.dropped(f"duplicate: of {original}, {labels[original]}")
        )
    return rows


def largest_first(clips: Sequence[ClipRow]) -> list[ClipRow]:
    """The kept clips by falling number of source pixels; equal ones stay in their order."""
    return sorted(
        (clip for clip in clips if clip.is_kept), key=lambda clip: -clip.box_height * clip.box_width
    )
