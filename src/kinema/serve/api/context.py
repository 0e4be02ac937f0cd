"""What the routes share: store, files, models, and who is calling."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from kinema.serve.api.errors import ApiError
from kinema.serve.blobs import Blobs
from kinema.serve.models import Catalogue
from kinema.serve.policy import Policy
from kinema.serve.settings import ServerSettings
from kinema.serve.store import keys
from kinema.serve.store.base import Limits
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import SqlStore
from kinema.serve.store.keys import Caller

P = ParamSpec("P")
T = TypeVar("T")

COOKIE = "kinema_key"
MAX_CALLERS = 10_000


@dataclass
class Server:
    """The parts of a running server."""

    settings: ServerSettings
    database: Database
    store: SqlStore
    blobs: Blobs
    catalogue: Catalogue
    policy: Policy
    is_draining: bool = False
    buckets: dict[str, tuple[float, float]] = field(default_factory=dict)
    """For each caller the requests that it may make now, and when that was so."""
    intakes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Limits the child processes that decode uploads."""

    async def query(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """The result of a short query. On SQLite it takes less time than a thread switch."""
        if self.database.is_sqlite:
            return function(*arguments, **options)
        return await run_in_threadpool(function, *arguments, **options)

    def take_token(self, caller: Caller) -> None:
        """Count a request that creates something. Raises `ApiError` (429) above the caller's rate."""
        rate = self.settings.requests_per_minute / 60
        burst, now = max(1.0, self.settings.requests_per_minute / 6), time.monotonic()
        left, since = self.buckets.get(caller.owner, (burst, now))
        left = min(burst, left + (now - since) * rate)
        if left < 1:
            headers = {"retry-after": str(max(1, round((1 - left) / rate)))}
            raise ApiError(429, "Too many requests.", code="rate_limit_exceeded", headers=headers)
        if len(self.buckets) > MAX_CALLERS:
            self.buckets.clear()
        self.buckets[caller.owner] = (left - 1, now)


def server_of(request: Request) -> Server:
    """The server that a request is for."""
    server: Server = request.app.state.server
    return server


async def caller_of(request: Request, scope: str) -> Caller:
    """Who sent a request. Raises `ApiError` (401, 403) without a valid key, or one of another scope.

    The key is in the header, or in the cookie of the page.
    """
    server = server_of(request)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        key = request.cookies.get(COOKIE, "")

    found = None
    if key.strip().startswith(keys.PREFIX):
        found = await server.query(keys.find, server.database, key.strip())
    if found is None:
        if server.settings.needs_keys:
            message = "Incorrect API key provided." if key else "You didn't provide an API key."
            raise ApiError(401, message, headers={"www-authenticate": "Bearer"})
        found = Caller(limits=Limits(server.settings.max_queued))
    if scope not in found.scopes and "admin" not in found.scopes:
        raise ApiError(403, f"This key lacks the scope {scope}.")
    request.state.caller = found.owner
    return found


async def read_caller(request: Request) -> Caller:
    """The caller of a request that reads."""
    return await caller_of(request, "videos.read")


async def write_caller(request: Request) -> Caller:
    """The caller of a request that writes."""
    return await caller_of(request, "videos.write")


def not_found(what: str, id: str) -> Any:
    """The error for an object that does not exist, or is another caller's."""
    return ApiError(404, f"No {what} with id '{id[:80]}'.", param="id", code="not_found")
