"""Files that a request brings or names: uploads, videos, characters, data URLs and addresses."""

import base64
import binascii
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from kinema.serve.api.bodies import is_file
from kinema.serve.api.context import Server, not_found
from kinema.serve.api.errors import ApiError
from kinema.serve.api.schemas import Media
from kinema.serve.api.views import blob_of
from kinema.serve.fetch import FetchError, send
from kinema.serve.store import items, videos
from kinema.serve.store.keys import Caller
from kinema.serve.store.tables import characters, files

MAX_PICTURE_BYTES = 20 << 20


async def collect(server: Server, caller: Caller, media: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Paths in `folder` of the files of each role. Raises `ApiError` for one that is missing or refused."""
    paths = {}
    for index, (role, value) in enumerate(media.items()):
        path = folder / f"upload-{index}"
        await _copy(server, caller, value, path, role)
        check_format(path, role)
        paths[role] = str(path)
    return paths


async def _copy(server: Server, caller: Caller, value: Any, path: Path, role: str) -> None:
    if is_file(value):
        await run_in_threadpool(_save, value.file, path)
        return
    if isinstance(value, str):
        value = {"image_url": value} if value.startswith(("data:", "https:", "http:")) else {"id": value}
    try:
        given = Media.model_validate(value)
    except ValidationError:
        message = "Give a file, or an object with one of id, file_id and image_url."
        raise ApiError(400, message, param=role, code="invalid_value") from None
    if len(given.model_fields_set) != 1:
        message = "Give one of id, file_id and image_url."
        raise ApiError(400, message, param=role, code="invalid_value")

    if given.image_url is not None:
        path.write_bytes(await run_in_threadpool(picture_at, given.image_url, server.settings.image_hosts))
    else:
        key = await _blob(server, caller, given)
        await run_in_threadpool(server.blobs.fetch, key, path)


def _save(source: Any, path: Path) -> None:
    source.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


async def _blob(server: Server, caller: Caller, given: Media) -> str:
    """The blob of a video, a character or a file of the caller."""
    if given.file_id is not None:
        row = await server.query(items.get, server.database, files, given.file_id, caller.owner)
        if row is None:
            raise not_found("file", given.file_id)
        return str(row.blob)

    id = given.id or ""
    if id.startswith(items.IDS["characters"]):
        row = await server.query(items.get, server.database, characters, id, caller.owner)
        if row is None:
            raise not_found("character", id)
        return str(row.blob)

    row = await server.query(videos.get, server.database, id, caller.owner)
    if row is None:
        raise not_found("video", id)
    key = blob_of(row, "video")
    if key is None:
        message = f"Video {id} is {row.status}: wait until it is completed."
        raise ApiError(400, message, param="video", code="video_not_ready")
    return key


def picture_at(url: str, hosts: tuple[str, ...]) -> bytes:
    """The bytes of a data URL, or of an https address on an allowed host. Raises `ApiError`."""
    if url.startswith("data:"):
        head, _, text = url.partition(",")
        if (
            not head.startswith("data:image/")
            or not head.endswith(";base64")
            or len(text) > 2 * MAX_PICTURE_BYTES
        ):
            message = "A data URL is data:image/...;base64,... of at most 20 MB."
            raise ApiError(400, message, param="input_reference.image_url", code="invalid_value")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            message = "The data URL is not base64."
            raise ApiError(400, message, param="input_reference.image_url", code="invalid_value") from None
    if not hosts:
        message = "This server reads data URLs only: upload the file, or send data:image/...;base64,..."
        raise ApiError(400, message, param="input_reference.image_url", code="invalid_image_url")
    try:
        status, _, content = send("GET", url, allowed_hosts=hosts, max_bytes=MAX_PICTURE_BYTES)
    except FetchError as error:
        message = f"The address cannot be read: {error}."
        raise ApiError(400, message, param="input_reference.image_url", code="invalid_image_url") from None
    if status != 200:
        message = f"The address cannot be read: status {status}."
        raise ApiError(400, message, param="input_reference.image_url", code="invalid_image_url")
    return content


def check_format(path: Path, role: str) -> None:
    """Raise `ApiError` unless the file begins like PNG, JPEG, WebP, MP4 or WebM, whatever its name says."""
    with path.open("rb") as file:
        head = file.read(16)
    is_known = (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1aE\xdf\xa3"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[4:8] == b"ftyp"
    )
    if not is_known:
        message = "The file is not PNG, JPEG, WebP, MP4 or WebM."
        raise ApiError(400, message, param=role, code="unsupported_format")
