"""The prompt of a task: as given, found in its clip, or expanded."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from kinema.checkpoints.captioner import CaptionerRunner
from kinema.checkpoints.expanders import load_expander
from kinema.errors import RequestError
from kinema.generation.conditioning.clips import InputClip, Report
from kinema.generation.output.provenance import stored_prompt
from kinema.generation.request import Request
from kinema.prompts.expansion import PromptKind, expand
from kinema.video import png_bytes

FORM = "medium"
"""Form of the captions of clips without a stored prompt."""


def with_clip_prompt(
    request: Request, clips: Sequence[InputClip], report: Report, *, at_end: bool = True
) -> Request:
    """The request with the prompt of its clips. `report` receives a line that states it.

    It is the first prompt in the metadata of `clips`, for a clip with timed prompts the one at its end or its
    start, or else the caption of the first clip, read from its end or its start. Raises `RequestError` for
    a clip that is too short for a caption.
    """
    for clip in clips:
        stored = stored_prompt(clip.metadata, clip.name, at_end=at_end)
        if stored.get("prompt", "").strip():
            report(f"prompt of {clip.name}: {stored['prompt']}")
            return replace(request, **stored, prompt_source="metadata")

    clip, runner = clips[0], _captioner()
    length = round(runner.captioner.config.num_frames / runner.oracle.config.fps * clip.video.fps)
    frames = clip.video.frames[-length:] if at_end else clip.video.frames[:length]
    try:
        caption = runner.caption(np.ascontiguousarray(frames), clip.video.fps, FORM)
    except RequestError as error:
        raise RequestError(f"{clip.name} has no prompt in its metadata, and {error}, or a prompt") from None
    report(f"caption of {clip.name}, as prompt: {caption.text} (confidence {caption.confidence:.2f})")
    return replace(request, prompt=caption.text, prompt_source="caption")


def with_expanded_prompt(
    request: Request, expander: str, kind: PromptKind, report: Report, clip: InputClip | None = None
) -> Request:
    """The request with its prompt expanded by the expander that `expander` names. `report` receives both.

    The expander also receives the first frame of `clip`. Raises the errors of `load_expander` and `expand`.
    """
    picture = None if clip is None else png_bytes(clip.video.frames[0])
    expansion = expand(request.prompt, load_expander(expander), kind=kind, picture=picture, seed=request.seed)
    for line in expansion.lines:
        report(line)
    return replace(request, **expansion.fields)


@cache
def _captioner() -> CaptionerRunner:
    return CaptionerRunner.load()
