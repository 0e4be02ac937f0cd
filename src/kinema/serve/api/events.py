"""Progress of a job as a stream of server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import StreamingResponse

from kinema.serve.api import views
from kinema.serve.api.context import Server, not_found, read_caller, server_of
from kinema.serve.store import videos
from kinema.serve.store.base import IN_PROGRESS, QUEUED
from kinema.serve.store.keys import Caller

router = APIRouter(tags=["videos"])
POLL_S = 0.3
PING_S = 15.0


@router.get(
    "/videos/{id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(
    request: Request, id: str, caller: Annotated[Caller, Depends(read_caller)]
) -> StreamingResponse:
    """The video object now and after every change, as events named `video`, until the job has ended.

    The first event holds the present state, so a client that reconnects misses nothing.
    """
    server = server_of(request)
    if await server.query(videos.get, server.database, id, caller.owner) is None:
        raise not_found("video", id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(
        _stream(server, id, caller.owner), headers=headers, media_type="text/event-stream"
    )


async def _stream(server: Server, id: str, owner: str) -> AsyncIterator[str]:
    sent, sent_s, number = "", time.monotonic(), 0
    while not server.is_draining:
        row = await server.query(videos.get, server.database, id, owner)
        if row is None:
            yield 'event: deleted\ndata: {"id": "' + id + '"}\n\n'
            return
        text = views.video(row).model_dump_json(exclude_none=True)
        if text != sent:
            sent, sent_s, number = text, time.monotonic(), number + 1
            yield f"id: {number}\nevent: video\ndata: {text}\n\n"
        elif time.monotonic() - sent_s > PING_S:
            sent_s = time.monotonic()
            yield ": still here\n\n"
        if row.status not in (QUEUED, IN_PROGRESS):
            return
        await asyncio.sleep(POLL_S)
