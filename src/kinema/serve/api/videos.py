"""The operations on videos."""

import asyncio
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from kinema.serve.api import requests, views
from kinema.serve.api.bodies import read_body
from kinema.serve.api.content import send_blob
from kinema.serve.api.context import Server, not_found, read_caller, server_of, write_caller
from kinema.serve.api.errors import ApiError
from kinema.serve.api.requests import Draft, parsed
from kinema.serve.api.schemas import (
    CreateVideo,
    Deleted,
    EditVideo,
    ExtendVideo,
    RemixVideo,
    Video,
    VideoList,
)
from kinema.serve.api.submit import Origin, once_of, submit
from kinema.serve.intake import Intake
from kinema.serve.models import ServedModel
from kinema.serve.store import videos
from kinema.serve.store.base import COMPLETED, FAILED, IN_PROGRESS, QUEUED
from kinema.serve.store.keys import Caller

router = APIRouter(tags=["videos"])
Reader = Annotated[Caller, Depends(read_caller)]
Writer = Annotated[Caller, Depends(write_caller)]
SYNC_POLL_S = 0.25


def body_of(*schemas: type[BaseModel]) -> dict[str, Any]:
    """The body of an operation in the OpenAPI document: JSON or a form of the same fields."""
    schema = {"$ref": f"#/components/schemas/{schemas[0].__name__}"}
    kinds = ("application/json", "multipart/form-data", "application/x-www-form-urlencoded")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def draft_of(server: Server, path: str, body: dict[str, Any]) -> tuple[Draft, ServedModel, Origin]:
    """The task of a body that was sent to `path`, its model, and where it comes from."""
    settings = server.settings
    if path == "edits":
        edit = parsed(EditVideo, body)
        model = server.catalogue.find(edit.model)
        draft, given = requests.of_edit(edit), edit.model
    elif path == "extensions":
        extension = parsed(ExtendVideo, body)
        model = server.catalogue.find(extension.model)
        draft, given = requests.of_extend(extension, settings.max_seconds), extension.model
    else:
        create = parsed(CreateVideo, body)
        model = server.catalogue.find(create.model)
        draft = requests.of_create(create, model, settings.unsupported, settings.max_seconds)
        given = create.model
    is_expanded = str(body.get("expand", "")).lower() in ("true", "1", "yes", "on")
    source = body.get("video")
    origin = Origin(
        given or model.name,
        source=source.get("id") if isinstance(source, dict) else None,
        expander="shipped" if is_expanded and draft.intake.fields.get("prompt") else None,
    )
    return draft, model, origin


async def _submit_body(request: Request, caller: Caller, response: Response, path: str) -> Video:
    server = server_of(request)
    server.take_token(caller)
    body = await read_body(request)
    draft, model, origin = draft_of(server, path, body)
    once = once_of(request.headers.get("idempotency-key"), path, body)
    row = await submit(server, caller, draft, model, origin, once)
    return _reply(row, response)


def _reply(row: Any, response: Response) -> Video:
    after_ms = views.poll_after_ms(row)
    if after_ms is not None:
        response.headers["openai-poll-after-ms"] = str(after_ms)
    return views.video(row)


@router.post("/videos", openapi_extra=body_of(CreateVideo), response_model_exclude_none=True)
async def create(request: Request, caller: Writer, response: Response) -> Video:
    """Generate a video."""
    return await _submit_body(request, caller, response, "videos")


@router.post("/videos/edits", openapi_extra=body_of(EditVideo), response_model_exclude_none=True)
async def edit(request: Request, caller: Writer, response: Response) -> Video:
    """Edit a video, or a part of it, by a prompt."""
    return await _submit_body(request, caller, response, "edits")


@router.post("/videos/extensions", openapi_extra=body_of(ExtendVideo), response_model_exclude_none=True)
async def extend(request: Request, caller: Writer, response: Response) -> Video:
    """Extend a video."""
    return await _submit_body(request, caller, response, "extensions")


@router.post(
    "/videos/sync",
    openapi_extra=body_of(CreateVideo),
    response_class=Response,
    responses={200: {"content": {"video/mp4": {}}}},
)
async def create_sync(request: Request, caller: Writer) -> Response:
    """Generate a video and reply with its file. The job goes on if the client leaves."""
    server = server_of(request)
    video = await _submit_body(request, caller, Response(), "videos")
    while True:
        row = await server.query(videos.get, server.database, video.id, caller.owner)
        if row is None:
            raise not_found("video", video.id)
        if row.status == COMPLETED:
            return await send_blob(request, server, views.blob_of(row, "video") or "")
        if row.status == FAILED:
            raise ApiError(500, row.error_message, code=row.error_code)
        await asyncio.sleep(SYNC_POLL_S)


@router.get("/videos", response_model=VideoList)
async def list_videos(
    request: Request,
    caller: Reader,
    after: Annotated[str | None, Query(max_length=200)] = None,
    before: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    """The caller's videos, the newest first, or with order=asc the oldest."""
    server = server_of(request)
    if after is not None and before is not None:
        raise ApiError(400, "Use one of after and before.", param="before", code="invalid_value")
    found = await server.query(
        videos.page,
        server.database,
        caller.owner,
        after=after,
        before=before,
        limit=limit,
        newest_first=order == "desc",
    )
    data = [views.video(row).model_dump(exclude_none=True) for row in found.rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    page = {"object": "list", "data": data, "first_id": first, "last_id": last}
    return JSONResponse(page | {"has_more": found.has_more and limit > 0})


@router.get("/videos/{id}", response_model_exclude_none=True)
async def retrieve(request: Request, id: str, caller: Reader, response: Response) -> Video:
    """A video."""
    return _reply(await _row(request, id, caller), response)


async def _row(request: Request, id: str, caller: Caller) -> Any:
    server = server_of(request)
    row = await server.query(videos.get, server.database, id, caller.owner)
    if row is None:
        raise not_found("video", id)
    return row


@router.delete("/videos/{id}")
async def delete(request: Request, id: str, caller: Writer) -> Deleted:
    """Delete a video. A job that runs is cancelled."""
    server = server_of(request)
    if not await run_in_threadpool(videos.mark_deleted, server.database, id, caller.owner):
        raise not_found("video", id)
    return Deleted(id=id, object="video.deleted")


@router.post("/videos/{id}/cancel", response_model_exclude_none=True)
async def cancel(request: Request, id: str, caller: Writer) -> Video:
    """Cancel a job: at once if it is queued, after its present step if it runs."""
    server = server_of(request)
    await _row(request, id, caller)
    await run_in_threadpool(server.store.cancel, id, caller.owner)
    return views.video(await _row(request, id, caller))


@router.post("/videos/{id}/remix", openapi_extra=body_of(RemixVideo), response_model_exclude_none=True)
async def remix(request: Request, id: str, caller: Writer, response: Response) -> Video:
    """The same request with another prompt."""
    server = server_of(request)
    server.take_token(caller)
    row = await _row(request, id, caller)
    body = await read_body(request)
    changed = parsed(RemixVideo, body)
    names = set(requests.REQUEST_FIELDS) & changed.model_fields_set
    fields = json.loads(row.request_json) | {name: getattr(changed, name) for name in names}
    for name in ("original_prompt", "expander"):
        fields.pop(name, None)
    model = server.catalogue.find(changed.model or row.model)
    draft = Draft(Intake("generate", fields), task="remix")
    origin = Origin(changed.model or row.shown_model, id, id, inputs=json.loads(row.inputs_json))
    once = once_of(request.headers.get("idempotency-key"), f"remix {id}", body)
    new = await submit(server, caller, draft, model, origin, once)
    return _reply(new, response)


@router.post("/videos/{id}/edits", openapi_extra=body_of(EditVideo), response_model_exclude_none=True)
async def edit_by_path(request: Request, id: str, caller: Writer, response: Response) -> Video:
    """Edit the video of the path."""
    server = server_of(request)
    server.take_token(caller)
    body = {**await read_body(request), "video": {"id": id}}
    draft, model, origin = draft_of(server, "edits", body)
    once = once_of(request.headers.get("idempotency-key"), "edits", body)
    return _reply(await submit(server, caller, draft, model, origin, once), response)


Variant = Literal["video", "thumbnail", "spritesheet", "drift", "drift_plot", "preview"]


@router.api_route(
    "/videos/{id}/content",
    methods=["GET", "HEAD"],
    response_class=Response,
    responses={
        200: {"content": {kind: {} for kind in ("video/mp4", "image/webp", "image/jpeg", "image/png")}},
        206: {"content": {"video/mp4": {}}},
    },
)
async def content(request: Request, id: str, caller: Reader, variant: Variant = "video") -> Response:
    """The file of a video, its thumbnail, spritesheet or drift report, or a preview while it runs."""
    server = server_of(request)
    row = await _row(request, id, caller)
    key = views.blob_of(row, variant)
    if key is None:
        if row.status in (QUEUED, IN_PROGRESS):
            message = f"Video {id} is {row.status}: wait until it is completed."
            raise ApiError(404, message, param="id", code="video_not_ready")
        raise ApiError(404, f"Video {id} has no {variant}.", param="variant", code="not_found")
    return await send_blob(request, server, key, is_final=variant != "preview")
