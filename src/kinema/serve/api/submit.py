"""From a draft to a stored job."""

import hashlib
import json
import logging
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from kinema.generation.plan import Plan, batch_key
from kinema.serve.api.bodies import is_file
from kinema.serve.api.context import Server
from kinema.serve.api.errors import ApiError
from kinema.serve.api.media import collect
from kinema.serve.api.requests import Draft
from kinema.serve.intake import Checked, check, check_apart
from kinema.serve.models import ServedModel
from kinema.serve.store import videos
from kinema.serve.store.base import NewJob, Once
from kinema.serve.store.keys import Caller

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a job comes from."""

    shown_model: str
    source: str | None = None
    """The video that it was made from."""
    remixed_from: str | None = None
    batch: str | None = None
    expander: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Blobs of clips that an earlier request brought."""


async def submit(
    server: Server, caller: Caller, draft: Draft, model: ServedModel, origin: Origin, once: Once | None
) -> Any:
    """The row of a new job, or of the earlier one with the same idempotency key.

    Raises `ApiError` for a request that the policy refuses or the model cannot fulfil, and the errors of
    `Store.enqueue`.
    """
    job = await prepare(server, caller, draft, model, origin)

    def store() -> Any:
        (id,) = server.store.enqueue([job], caller.limits, once)
        return videos.get(server.database, id, caller.owner)

    return await run_in_threadpool(store)


async def prepare(server: Server, caller: Caller, draft: Draft, model: ServedModel, origin: Origin) -> NewJob:
    """The job of a draft; its clips are in the blob store."""
    await _moderate(server, caller, draft)
    uploads = server.settings.storage.data / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    if not draft.media:
        checked = check(replace_model(draft, model), model, uploads)
        return _job(caller, draft, checked, origin.inputs, model, origin)

    with tempfile.TemporaryDirectory(dir=uploads) as name:
        folder = Path(name)
        paths = await collect(server, caller, draft.media, folder)
        intake = replace(replace_model(draft, model), media=paths)
        async with server.intakes:
            checked = await check_apart(intake, model, folder / "clips")
        blobs = {media: f"inputs/{media}.npz" for media in checked.inputs}
        for media, file in checked.inputs.items():
            await run_in_threadpool(server.blobs.put, blobs[media], Path(file))
    return _job(caller, draft, checked, blobs, model, origin)


def replace_model(draft: Draft, model: ServedModel) -> Any:
    """The intake for the path of the model."""
    return replace(draft.intake, fields={**draft.intake.fields, "model": model.path})


async def _moderate(server: Server, caller: Caller, draft: Draft) -> None:
    """Raise `ApiError` for prompts that the policy refuses."""
    if server.policy.name == "off":
        return
    fields = draft.intake.fields
    prompts = [str(fields.get(name) or "") for name in ("prompt", "negative_prompt")]
    prompts += [entry["prompt"] or "" for _, entry in draft.intake.params.get("shots", [])]
    refusal = await run_in_threadpool(server.policy.check, prompts)
    if refusal is not None:
        log.warning("prompt refused", extra={"owner": caller.owner, "rule": refusal.rule})
        raise ApiError(400, refusal.message, param="prompt", code="moderation_blocked")


def _job(
    caller: Caller,
    draft: Draft,
    checked: Checked,
    inputs: Mapping[str, str],
    model: ServedModel,
    origin: Origin,
) -> NewJob:
    request = checked.request
    plan = model.plan(request)
    report = model.read_prompt(request.prompt) if request.prompt and origin.expander is None else None
    detail = _detail(plan, draft) | {"words": report.text if report is not None else None}
    detail |= {"source": origin.source, "expander": origin.expander}
    length_s = plan.frames / plan.fps
    return NewJob(
        f"video_{secrets.token_hex(16)}",
        caller.owner,
        model.name,
        request.to_dict(),
        request.prompt,
        f"{plan.width}x{plan.height}",
        f"{round(length_s, 2):g}",
        length_s,
        shown_model=origin.shown_model,
        inputs=inputs,
        detail={name: value for name, value in detail.items() if value not in (None, [])},
        batch_key=batch_key(plan),
        priority=caller.priority,
        remixed_from=origin.remixed_from,
        batch=origin.batch,
    )


def _detail(plan: Plan, draft: Draft) -> dict[str, Any]:
    """What replies say about a job before it has run."""
    names = ("width", "height", "frames", "fps", "steps", "guidance", "sampler")
    values = {name: getattr(plan, name) for name in names}
    return values | {"task": draft.task, "seed": plan.request.seed, "adjusted": draft.adjusted}


def once_of(key: str | None, path: str, body: Mapping[str, Any]) -> Once | None:
    """The idempotency key of a request with the digest of its parsed body."""
    if not key:
        return None
    if len(key) > 255:
        raise ApiError(400, "An idempotency key has at most 255 characters.", code="invalid_idempotency_key")
    text = json.dumps([path, body], sort_keys=True, default=_content)
    return Once(key, hashlib.sha256(text.encode()).hexdigest())


def _content(value: Any) -> str:
    if not is_file(value):
        return str(value)
    value.file.seek(0)
    return hashlib.file_digest(value.file, "sha256").hexdigest()
