"""Who writes captions for clips (a captioner, a vision model at an endpoint, or a file), and the stage in which they do."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kinema.checkpoints.folders import resolve_model
from kinema.config import from_dict
from kinema.data.curation.captioner_runner import CaptionerRunner
from kinema.data.curation.recipe import Captioning
from kinema.data.curation.stages import Result, Task, one_thread, shown_clips
from kinema.errors import EndpointError
from kinema.files import content_key
from kinema.video import png_bytes

if TYPE_CHECKING:
    from kinema.models.clip import CLIP

INSTRUCTIONS = "You caption video clips for training a text-to-video model. Say only what can be seen. Answer with the caption alone, in {language}."
LANGUAGES = {"en": "English", "zh": "Chinese"}
ASKED = {
    "short": "These are {n} frames of one clip, in order. Name the main subject and what it does, and to which side, in at most 15 words.",
    "medium": "These are {n} frames of one clip, in order. In one sentence: the subject, what it does, to which side, where, "
    "in which light.",
    "detailed": "These are {n} frames of one clip, in order. In three to six sentences: the subject and its looks, what it does and how it "
    "moves, the place, the light and the sky, what the camera does, and the style.",
}
Said = dict[str, Any]
"""A caption as a writer gives it: text, confidence and agreement (None where there is none), is_whole."""


def forms_of(config: Captioning) -> list[str]:
    """The forms of a caption that are written, by the names under which they are kept."""
    return [form + ("_zh" if config.language == "zh" else "") for form in config.forms]


def caption(task: Task) -> Result:
    """What the writer says of some clips of the file at task["path"]: {"said": {clip_id: {form: [captions]}}, "error": ""}.

    task["clips"] are rows as `stages.encode` has them, with texts by form where a file is the writer; task["captions"] is a `Captioning`
    as a table. When an endpoint fails, "error" says how, and "said" holds what was said before.
    """
    config = from_dict(Captioning, task["captions"])
    writer = _writer(json.dumps(task["captions"], sort_keys=True))
    judge = _agreement(config.clip) if config.min_agreement > -1 else None
    said: dict[str, Any] = {}
    failures: list[EndpointError] = []

    def ask(pair: tuple[Mapping[str, Any], np.ndarray]) -> tuple[str, dict[str, list[Said]]]:
        clip, frames = pair
        if not failures:
            try:
                return clip["clip_id"], writer(clip, frames)
            except EndpointError as error:
                failures.append(error)
        return clip["clip_id"], {}

    with ThreadPoolExecutor(config.parallel if config.writer == "endpoint" else 1) as pool:
        shown = list(shown_clips(task))
        for (clip_id, forms), (_, frames) in zip(pool.map(ask, shown), shown):
            for one in (one for candidates in forms.values() for one in candidates):
                one["agreement"] = judge(frames, one["text"]) if judge else None
            if forms:
                said[clip_id] = forms
    return {"said": said, "error": str(failures[0]) if failures else ""}


class _Writer(Protocol):
    def __call__(self, clip: Mapping[str, Any], frames: np.ndarray) -> dict[str, list[Said]]: ...


@cache
def _writer(table: str) -> _Writer:
    """The writer of a `Captioning` in JSON, loaded once a process."""
    config = from_dict(Captioning, json.loads(table))
    if config.writer == "file":
        return lambda clip, frames: {form: [_said(text)] for form, text in clip["texts"].items()}
    if config.writer == "endpoint":
        return _endpoint_writer(config)
    runner = CaptionerRunner.load(config.model)

    def describe(clip: Mapping[str, Any], frames: np.ndarray) -> dict[str, list[Said]]:
        forms: dict[str, list[Said]] = {}
        for form in forms_of(config):
            seeds = [
                int(content_key([config.seed, clip["clip_id"], form, i])[:15], 16) for i in range(config.tries)
            ]
            with one_thread():
                drawn = [
                    runner.describe(frames, clip["fps"], form, temperature=config.temperature, seed=seed)
                    for seed in seeds
                ]
            forms[form] = [_said(one.text, round(one.confidence, 4), one.is_complete) for one in drawn]
        return forms

    return describe


def _endpoint_writer(config: Captioning) -> _Writer:
    endpoint = config.ask()

    def describe(clip: Mapping[str, Any], frames: np.ndarray) -> dict[str, list[Said]]:
        indices = sorted(
            {round(i * (len(frames) - 1) / max(1, config.pictures - 1)) for i in range(config.pictures)}
        )
        pictures = [png_bytes(frames[i]) for i in indices]
        forms: dict[str, list[Said]] = {}
        for form in forms_of(config):
            question = ASKED[form.removesuffix("_zh")].format(n=len(pictures))
            answers = [
                endpoint.ask(INSTRUCTIONS.format(language=LANGUAGES[config.language]), question, pictures)
                for _ in range(config.tries)
            ]
            forms[form] = [_said(" ".join(answer.strip().strip('"').split())) for answer in answers]
        return forms

    return describe


@cache
def _agreement(model: str) -> Callable[[np.ndarray, str], float | None]:
    """The cosine of a clip and a caption by the CLIP of a model; None for a caption with words that it does not know."""
    import torch

    from kinema.checkpoints.folders import load_clip
    from kinema.models.pixels import from_uint8

    clip: CLIP = load_clip(resolve_model(model))

    def judge(frames: np.ndarray, text: str) -> float | None:
        uses = clip.tokenizer.explain(text)
        if not uses or not all(use.known and use.used for use in uses):
            return None
        with torch.inference_mode(), one_thread():
            return round(float(clip.similarity(from_uint8([frames]), [text])[0, 0]), 4)

    return judge


def _said(text: str, confidence: float | None = None, is_whole: bool = True) -> Said:
    return {"text": text, "confidence": confidence, "is_whole": is_whole, "agreement": None}
