"""Batches: many videos from the lines of one file."""

import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool

from kinema.errors import KinemaError
from kinema.serve.api.bodies import json_object, read_body
from kinema.serve.api.context import Server, not_found, read_caller, server_of, write_caller
from kinema.serve.api.errors import ApiError, of_validation
from kinema.serve.api.submit import prepare
from kinema.serve.api.videos import body_of, draft_of
from kinema.serve.store import items, videos
from kinema.serve.store.base import COMPLETED, FAILED, NewJob
from kinema.serve.store.keys import Caller
from kinema.serve.store.tables import batches, files

router = APIRouter(tags=["batches"])
Reader = Annotated[Caller, Depends(read_caller)]
Writer = Annotated[Caller, Depends(write_caller)]
MAX_LINES = 1000
WINDOW_S = 86_400.0


class CreateBatch(BaseModel):
    """A file of requests."""

    model_config = ConfigDict(extra="forbid")
    input_file_id: str
    endpoint: Literal["/v1/videos"]
    completion_window: Literal["24h"] = "24h"
    metadata: dict[str, str] | None = None


class Counts(BaseModel):
    """How many requests of a batch have ended."""

    total: int
    completed: int
    failed: int


class Batch(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str = "/v1/videos"
    errors: None = None
    input_file_id: str
    completion_window: str = "24h"
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int
    expires_at: int
    completed_at: int | None = None
    request_counts: Counts
    metadata: dict[str, str] | None = None


class BatchList(BaseModel):
    """A page of batches."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


@router.post("/batches", openapi_extra=body_of(CreateBatch))
async def create_batch(request: Request, caller: Writer) -> Batch:
    """Generate the videos of a file with one request a line. Lines that are wrong end in the error file."""
    server = server_of(request)
    server.take_token(caller)
    body = await read_body(request)
    metadata = body.pop("metadata", None)
    given = CreateBatch.model_validate({**body, "metadata": metadata or None})
    file = await server.query(items.get, server.database, files, given.input_file_id, caller.owner)
    if file is None:
        raise not_found("file", given.input_file_id)

    path = await run_in_threadpool(_read, server, file.blob)
    texts = [line for line in path.splitlines() if line.strip()]
    if not 0 < len(texts) <= MAX_LINES:
        message = f"The file has {len(texts)} requests: use 1 to {MAX_LINES}."
        raise ApiError(400, message, param="input_file_id", code="invalid_value")
    id = items.new_id(batches)
    lines, jobs = [], []
    for text in texts:
        line, job = await _line(server, caller, text, id)
        lines.append(line)
        jobs += [] if job is None else [job]
    if jobs:
        await run_in_threadpool(server.store.enqueue, jobs, caller.limits)
    row = await run_in_threadpool(_store, server, caller, id, given, lines)
    return await run_in_threadpool(batch, server, row)


def _read(server: Server, blob: str) -> bytes:
    size = server.blobs.head(blob)
    return b"".join(server.blobs.chunks(blob, 0, size.size_bytes)) if size is not None else b""


def _store(server: Server, caller: Caller, id: str, given: CreateBatch, lines: list[dict[str, Any]]) -> Any:
    now = server.database.now()
    values = {"id": id, "owner": caller.owner, "status": "in_progress", "input_file": given.input_file_id}
    texts = {"lines_json": json.dumps(lines), "metadata_json": json.dumps(given.metadata)}
    return items.add(server.database, batches, **values, **texts, expires=now + WINDOW_S)


async def _line(
    server: Server, caller: Caller, text: bytes, batch_id: str
) -> tuple[dict[str, Any], NewJob | None]:
    """A line of the batch as it is stored, and its job; without a job the line has the error."""
    custom_id = None
    try:
        values = json_object(text)
        custom_id = str(values.get("custom_id", ""))
        if values.get("url") != "/v1/videos" or values.get("method", "POST") != "POST":
            raise ApiError(400, "A line has the method POST and the url /v1/videos.", param="url")
        body = values.get("body")
        if not isinstance(body, dict):
            raise ApiError(400, "A line has an object as body.", param="body")
        draft, model, origin = draft_of(server, "videos", body)
        job = await prepare(server, caller, draft, model, replace(origin, batch=batch_id))
        return {"custom_id": custom_id, "video": job.id}, job
    except (ApiError, ValidationError, KinemaError) as error:
        wrong = of_validation(error) if isinstance(error, ValidationError) else error
        code = getattr(wrong, "code", None) or "invalid_value"
        return {"custom_id": custom_id, "error": {"code": code, "message": str(wrong)}}, None


@router.get("/batches")
async def list_batches(
    request: Request,
    caller: Reader,
    after: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BatchList:
    """The caller's batches, the newest first."""
    server = server_of(request)
    found = await run_in_threadpool(
        items.rows, server.database, batches, caller.owner, after=after, limit=limit + 1
    )
    data = [await run_in_threadpool(batch, server, row) for row in found[:limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return BatchList(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/batches/{id}")
async def get_batch(request: Request, id: str, caller: Reader) -> Batch:
    """A batch."""
    return await run_in_threadpool(batch, server_of(request), await _row(request, id, caller))


@router.post("/batches/{id}/cancel")
async def cancel_batch(request: Request, id: str, caller: Writer) -> Batch:
    """Cancel the videos of a batch that have not ended."""
    server = server_of(request)
    row = await _row(request, id, caller)
    for video in await run_in_threadpool(videos.of_batch, server.database, id):
        await run_in_threadpool(server.store.cancel, video.id, caller.owner)
    if row.status == "in_progress":
        await run_in_threadpool(items.end_batch, server.database, id, status="cancelled")
    return await run_in_threadpool(batch, server, await _row(request, id, caller))


async def _row(request: Request, id: str, caller: Caller) -> Any:
    server = server_of(request)
    row = await server.query(items.get, server.database, batches, id, caller.owner)
    if row is None:
        raise not_found("batch", id)
    return row


def batch(server: Server, row: Any) -> Batch:
    """The batch object of a row."""
    lines = json.loads(row.lines_json)
    states = [video.status for video in videos.of_batch(server.database, row.id)]
    wrong = sum("error" in line for line in lines)
    counts = Counts(total=len(lines), completed=states.count(COMPLETED), failed=states.count(FAILED) + wrong)
    return Batch(
        id=row.id,
        input_file_id=row.input_file,
        status=row.status,
        output_file_id=row.output_file,
        error_file_id=row.error_file,
        created_at=int(row.created),
        in_progress_at=int(row.created),
        expires_at=int(row.expires),
        completed_at=None if row.completed is None else int(row.completed),
        request_counts=counts,
        metadata=json.loads(row.metadata_json),
    )
