"""Downloads: whole files and ranges, with ETags."""

import re
from collections.abc import Iterator

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, RedirectResponse, StreamingResponse

from kinema.serve.api.context import Server
from kinema.serve.api.errors import ApiError
from kinema.serve.api.views import media_type
from kinema.serve.blobs import Blob

RANGE = re.compile(rb"bytes=(?:\d+-\d*|-\d+)(?:\s*,\s*(?:\d+-\d*|-\d+)){0,15}")


async def send_blob(request: Request, server: Server, key: str, *, is_final: bool = True) -> Response:
    """The file of a key: the whole, or the part that the Range header asks for.

    A Range of another unit or form is ignored, as RFC 9110 (14.2) demands. `is_final` allows caches to keep
    the file.
    """
    headers = {
        "cache-control": "private, max-age=3600, immutable" if is_final else "no-store",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
    }
    local = server.blobs.local_path(key)
    if local is not None:
        if not local.is_file():
            raise ApiError(404, "The file is gone.", code="not_found")
        _drop_odd_range(request)
        return FileResponse(local, media_type=media_type(key), headers=headers)

    if server.settings.redirect_content:
        url = await run_in_threadpool(server.blobs.signed_url, key)
        if url is not None:
            return RedirectResponse(url, 302, {"cache-control": "no-store"})
    blob = await run_in_threadpool(server.blobs.head, key)
    if blob is None:
        raise ApiError(404, "The file is gone.", code="not_found")
    return _from_bucket(request, server, blob, headers)


def _drop_odd_range(request: Request) -> None:
    """Remove a Range header that is not a list of byte ranges, or one that runs backwards."""
    value = dict(request.scope["headers"]).get(b"range")
    if value is None:
        return
    ends = [part.split(b"-") for part in value.removeprefix(b"bytes=").split(b",")]
    runs_back = any(len(e) == 2 and e[0].strip() and e[1].strip() and _is_backward(e) for e in ends)
    if not RANGE.fullmatch(value.strip()) or runs_back:
        request.scope["headers"] = [item for item in request.scope["headers"] if item[0] != b"range"]


def _is_backward(ends: list[bytes]) -> bool:
    first, last = (end.strip() for end in ends)
    return first.isdigit() and last.isdigit() and int(first) > int(last)


def _from_bucket(request: Request, server: Server, blob: Blob, headers: dict[str, str]) -> Response:
    """A file of the bucket, passed on in pieces."""
    headers |= {"etag": f'"{blob.etag}"'}
    kind = media_type(blob.key)
    if request.headers.get("if-none-match", "").strip('W/"') == blob.etag:
        return Response(status_code=304, headers=headers)

    span, status = _span(request, blob), 206
    if span is None:
        span, status = (0, blob.size_bytes), 200
    start, stop = span
    if status == 206:
        if start >= stop:
            raise ApiError(
                416, "The range is outside the file.", headers={"content-range": f"bytes */{blob.size_bytes}"}
            )
        headers["content-range"] = f"bytes {start}-{stop - 1}/{blob.size_bytes}"
    headers["content-length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)

    def pieces() -> Iterator[bytes]:
        yield from server.blobs.chunks(blob.key, start, stop)

    return StreamingResponse(pieces(), status, headers, kind)


def _span(request: Request, blob: Blob) -> tuple[int, int] | None:
    """First byte and byte after the last of the one range that is asked for; None for the whole file."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "").strip())
    if_range = request.headers.get("if-range", "").strip('W/"')
    if match is None or match[0] == "bytes=-" or (if_range and if_range != blob.etag):
        return None
    first, last = match.groups()
    if not first:
        return max(0, blob.size_bytes - int(last)), blob.size_bytes
    stop = blob.size_bytes if not last else min(int(last) + 1, blob.size_bytes)
    return None if last and int(first) > int(last) else (int(first), stop)
