"""Characters, uploaded files and webhooks of a caller."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from kinema.serve.api.bodies import is_file, read_body
from kinema.serve.api.content import send_blob
from kinema.serve.api.context import Server, not_found, read_caller, server_of, write_caller
from kinema.serve.api.errors import ApiError
from kinema.serve.api.media import collect
from kinema.serve.api.requests import parsed
from kinema.serve.api.schemas import CharacterReply, CreateCharacter, Deleted, File
from kinema.serve.api.videos import body_of
from kinema.serve.fetch import FetchError, resolve
from kinema.serve.intake import Intake, check_apart
from kinema.serve.store import hooks, items
from kinema.serve.store.keys import Caller
from kinema.serve.store.tables import characters, files

router = APIRouter()
Reader = Annotated[Caller, Depends(read_caller)]
Writer = Annotated[Caller, Depends(write_caller)]


class UploadFileBody(BaseModel):
    """A file for later requests."""

    model_config = ConfigDict(extra="forbid")
    file: File
    purpose: str


class FileReply(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str = "processed"


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AddWebhook(BaseModel):
    """An address that receives the events of the caller's videos."""

    model_config = ConfigDict(extra="forbid")
    url: str


class Webhook(BaseModel):
    """A webhook. Its secret is shown once, when it is made."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    created_at: int
    disabled: str | None = None
    secret: str | None = None


class WebhookList(BaseModel):
    """All webhooks of the caller."""

    object: Literal["list"] = "list"
    data: list[Webhook]


@router.post("/videos/characters", openapi_extra=body_of(CreateCharacter), tags=["characters"])
async def create_character(request: Request, caller: Writer) -> CharacterReply:
    """Keep a clip of a character under a name. The clip's first picture can begin a new video."""
    server = server_of(request)
    server.take_token(caller)
    body = parsed(CreateCharacter, await read_body(request))
    id = items.new_id(characters)
    blob = f"library/{id}.png"
    uploads = server.settings.storage.data / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=uploads) as name:
        paths = await collect(server, caller, {"clip": body.video}, Path(name))
        model = server.catalogue.find(None)
        intake = Intake("picture", {}, media=paths)
        async with server.intakes:
            found = await check_apart(intake, model, Path(name))
        await run_in_threadpool(server.blobs.put, blob, Path(next(iter(found.inputs.values()))))
    values = {"id": id, "owner": caller.owner, "name": body.name, "blob": blob}
    row = await run_in_threadpool(items.add, server.database, characters, **values)
    return _character(row)


@router.get("/videos/characters/{id}", tags=["characters"])
async def get_character(request: Request, id: str, caller: Reader) -> CharacterReply:
    """A character."""
    server = server_of(request)
    row = await server.query(items.get, server.database, characters, id, caller.owner)
    if row is None:
        raise not_found("character", id)
    return _character(row)


def _character(row: Any) -> CharacterReply:
    return CharacterReply(id=row.id, name=row.name, created_at=int(row.created))


@router.post("/files", openapi_extra=body_of(UploadFileBody), tags=["files"])
async def upload(request: Request, caller: Writer) -> FileReply:
    """Keep a file for later requests: a picture, a clip, or the lines of a batch."""
    server = server_of(request)
    server.take_token(caller)
    body = parsed(UploadFileBody, await read_body(request))
    if not is_file(body.file):
        raise ApiError(400, "Send a file in a form.", param="file", code="invalid_value")
    name = str(body.file.filename or "file")[-200:]
    return _file(await store_file(server, caller, body.file.file, name, body.purpose[:40]))


async def store_file(server: Server, caller: Caller, source: Any, name: str, purpose: str) -> Any:
    """The row of a new file with the content of `source`, a binary file."""
    id = items.new_id(files)
    suffix = ".jsonl" if purpose.startswith("batch") else ""
    blob = f"library/{id}{suffix}"
    source.seek(0, 2)
    size = source.tell()
    source.seek(0)
    content = await run_in_threadpool(source.read)
    await run_in_threadpool(server.blobs.put, blob, content)
    values = {
        "id": id,
        "owner": caller.owner,
        "name": name,
        "purpose": purpose,
        "size_bytes": size,
        "blob": blob,
    }
    return await run_in_threadpool(items.add, server.database, files, **values)


@router.get("/files", tags=["files"])
async def list_files(
    request: Request,
    caller: Reader,
    after: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FileList:
    """The caller's files, the newest first."""
    server = server_of(request)
    found = await server.query(items.rows, server.database, files, caller.owner, after=after, limit=limit + 1)
    data = [_file(row) for row in found[:limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FileList(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/files/{id}", tags=["files"])
async def get_file(request: Request, id: str, caller: Reader) -> FileReply:
    """A file's description."""
    return _file(await _row(request, id, caller))


async def _row(request: Request, id: str, caller: Caller) -> Any:
    server = server_of(request)
    row = await server.query(items.get, server.database, files, id, caller.owner)
    if row is None:
        raise not_found("file", id)
    return row


@router.api_route(
    "/files/{id}/content",
    methods=["GET", "HEAD"],
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
    tags=["files"],
)
async def file_content(request: Request, id: str, caller: Reader) -> Response:
    """The content of a file."""
    row = await _row(request, id, caller)
    return await send_blob(request, server_of(request), row.blob)


@router.delete("/files/{id}", tags=["files"])
async def delete_file(request: Request, id: str, caller: Writer) -> Deleted:
    """Delete a file."""
    server = server_of(request)
    if not await run_in_threadpool(items.remove, server.database, files, id, caller.owner):
        raise not_found("file", id)
    return Deleted(id=id, object="file")


def _file(row: Any) -> FileReply:
    return FileReply(
        id=row.id, bytes=row.size_bytes, created_at=int(row.created), filename=row.name, purpose=row.purpose
    )


@router.post("/webhooks", openapi_extra=body_of(AddWebhook), tags=["webhooks"])
async def add_webhook(request: Request, caller: Writer) -> Webhook:
    """Send the events of the caller's videos to an address, signed as Standard Webhooks."""
    server = server_of(request)
    server.take_token(caller)
    body = parsed(AddWebhook, await read_body(request))
    await run_in_threadpool(check_webhook, body.url, server.settings.webhook_hosts)
    id, secret = await run_in_threadpool(hooks.add, server.database, caller.owner, body.url)
    rows = await server.query(hooks.rows, server.database, caller.owner)
    row = next(row for row in rows if row.id == id)
    return _webhook(row).model_copy(update={"secret": secret})


def check_webhook(url: str, private_hosts: tuple[str, ...]) -> None:
    """Raise `ApiError` for an address that webhooks may not have."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        is_private = host in private_hosts
        if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not is_private) or not host:
            raise FetchError("it must begin with https://")
        resolve(host, port, is_private)
    except (FetchError, ValueError) as error:
        raise ApiError(400, f"Invalid 'url': {error}.", param="url", code="invalid_value") from None


@router.get("/webhooks", tags=["webhooks"])
async def list_webhooks(request: Request, caller: Reader) -> WebhookList:
    """The caller's webhooks."""
    server = server_of(request)
    found = await server.query(hooks.rows, server.database, caller.owner)
    return WebhookList(data=[_webhook(row) for row in found])


@router.delete("/webhooks/{id}", tags=["webhooks"])
async def remove_webhook(request: Request, id: str, caller: Writer) -> Deleted:
    """Remove a webhook."""
    server = server_of(request)
    if not await run_in_threadpool(hooks.remove, server.database, id, caller.owner):
        raise not_found("webhook", id)
    return Deleted(id=id, object="webhook.deleted")


def _webhook(row: Any) -> Webhook:
    return Webhook(id=row.id, url=row.url, created_at=int(row.created), disabled=row.disabled)
