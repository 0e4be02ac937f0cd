"""The writers of captions, which run in child processes: a captioner, a vision model at an endpoint, or a
file.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch

from kinema.checkpoints.captioner import CaptionerRunner
from kinema.checkpoints.components import load_clip
from kinema.checkpoints.folders import resolve_model
from kinema.config import from_dict
from kinema.data.curation.caption_checks import CaptionCandidate
from kinema.data.curation.engine import one_thread
from kinema.data.curation.recipe import CaptionSettings
from kinema.data.curation.steps.clip_frames import Span, clip_frames
from kinema.errors import EndpointError
from kinema.files import content_key
from kinema.models.clip import CLIP
from kinema.models.pixels import from_uint8
from kinema.video import png_bytes

# The texts below enter the keys of stored captions: changing one makes every endpoint caption anew.
INSTRUCTIONS = (
    "You caption video clips for training a text-to-video model. Say only what can be seen. "
    "Answer with the caption alone, in {language}."
)
LANGUAGES = {"en": "English", "zh": "Chinese"}
QUESTIONS = {
    "short": "These are {n} frames of one clip, in order. Name the main subject and what it does, and "
    "to which side, in at most 15 words.",
    "medium": "These are {n} frames of one clip, in order. In one sentence: the subject, what it does, "
    "to which side, where, in which light.",
    "detailed": "These are {n} frames of one clip, in order. In three to six sentences: the subject and "
    "its looks, "
    "what it does and how it moves, the place, the light and the sky, what the camera does, and the style.",
}

Captions = dict[str, list[CaptionCandidate]]
"""Candidates by form."""
Writer = Callable[[Span, np.ndarray], Captions]
"""From a span and its frames, uint8 (f, h, w, 3), to captions. Raises `EndpointError`."""


def forms_of(settings: CaptionSettings) -> list[str]:
    """The forms of caption that are written, under their names in the data set."""
    return [form + ("_zh" if settings.language == "zh" else "") for form in settings.forms]


def write_captions(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{"said": {clip_id: {form: [candidates]}}, "error": ""} of clips of the file at arguments["path"].

    arguments["clips"] are spans, with "texts" by form if a file is the writer; arguments["captions"] is a
    `CaptionSettings` as a dict. If an endpoint fails, "error" is its message and "said" has the captions
    before it.
    """
    settings = from_dict(CaptionSettings, arguments["captions"])
    writer = _writer(json.dumps(arguments["captions"], sort_keys=True))
    agreement = _agreement(settings.clip) if settings.min_agreement > -1 else None
    failures: list[EndpointError] = []

    def write(pair: tuple[Span, np.ndarray]) -> Captions:
        if failures:
            return {}
        try:
            return writer(*pair)
        except EndpointError as error:
            failures.append(error)
            return {}

    captions: dict[str, Captions] = {}
    with ThreadPoolExecutor(settings.parallel if settings.writer == "endpoint" else 1) as pool:
        clips = list(clip_frames(arguments))
        for (span, frames), forms in zip(clips, pool.map(write, clips)):
            for candidates in forms.values():
                for candidate in candidates:
                    candidate["agreement"] = agreement(frames, candidate["text"]) if agreement else None
            if forms:
                captions[span["clip_id"]] = forms
    return {"said": captions, "error": str(failures[0]) if failures else ""}


@cache
def _writer(table: str) -> Writer:
    """The writer of a `CaptionSettings` in JSON, created once per process."""
    settings = from_dict(CaptionSettings, json.loads(table))
    match settings.writer:
        case "file":
            return lambda span, _: {form: [_candidate(text)] for form, text in span["texts"].items()}
        case "endpoint":
            return _endpoint_writer(settings)
        case _:
            return _captioner_writer(settings)


def _captioner_writer(settings: CaptionSettings) -> Writer:
    runner = CaptionerRunner.load(settings.model)

    def write(span: Span, frames: np.ndarray) -> Captions:
        forms: Captions = {}
        for form in forms_of(settings):
            candidates = []
            for index in range(settings.tries):
                seed = int(content_key([settings.seed, span["clip_id"], form, index])[:15], 16)
                with one_thread():
                    caption = runner.caption(
                        frames, span["fps"], form, temperature=settings.temperature, seed=seed
                    )
                candidates.append(_candidate(caption.text, round(caption.confidence, 4), caption.is_complete))
            forms[form] = candidates
        return forms

    return write


def _endpoint_writer(settings: CaptionSettings) -> Writer:
    endpoint = settings.open_endpoint()
    instructions = INSTRUCTIONS.format(language=LANGUAGES[settings.language])

    def write(_: Span, frames: np.ndarray) -> Captions:
        last, num_gaps = len(frames) - 1, max(1, settings.pictures - 1)
        indices = sorted({round(i * last / num_gaps) for i in range(settings.pictures)})
        images = [png_bytes(frames[index]) for index in indices]

        forms: Captions = {}
        for form in forms_of(settings):
            question = QUESTIONS[form.removesuffix("_zh")].format(n=len(images))
            answers = [endpoint.ask(instructions, question, images) for _ in range(settings.tries)]
            forms[form] = [_candidate(" ".join(answer.strip().strip('"').split())) for answer in answers]
        return forms

    return write


@cache
def _agreement(model: str) -> Callable[[np.ndarray, str], float | None]:
    """The cosine of a clip and a caption by the CLIP of `model`; None if the caption has words outside its
    vocabulary.
    """
    clip: CLIP = load_clip(resolve_model(model))

    def agreement(frames: np.ndarray, text: str) -> float | None:
        uses = clip.tokenizer.explain(text)
        if not uses or not all(use.known and use.used for use in uses):
            return None
        with torch.inference_mode(), one_thread():
            return round(float(clip.similarity(from_uint8([frames]), [text])[0, 0]), 4)

    return agreement


def _candidate(text: str, confidence: float | None = None, is_whole: bool = True) -> CaptionCandidate:
    return {"text": text, "confidence": confidence, "is_whole": is_whole, "agreement": None}
