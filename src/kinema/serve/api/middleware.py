"""What every request passes through: limits of the body, checks of host and origin, headers, log lines."""

import logging
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinema.serve.api.errors import ApiError, reply

log = logging.getLogger("kinema.serve.access")

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class Gate:
    """The outermost layer of the app. Needs `app.state.server` and `app.state.figures`."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], max_body_bytes: int, figures: Any) -> None:
        """`hosts` are the names that a browser may use; empty allows any."""
        self.app, self.hosts, self.max_body_bytes, self.figures = app, hosts, max_body_bytes, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        id = headers.get("x-request-id", "")
        if not (0 < len(id) <= 64 and id.isascii() and id.replace("-", "").replace("_", "").isalnum()):
            id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = id
        start_s, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = {"x-request-id": id, **SECURITY}
                present = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *((n.encode(), v.encode()) for n, v in extra.items() if n.encode() not in present),
                ]
            await send(message)

        try:
            refusal = self._refusal(scope["method"], headers)
            if refusal is not None:
                await reply(refusal)(scope, receive, answer)
                return
            await self._limited(scope, receive, answer, headers)
        finally:
            self._note(scope, status, time.perf_counter() - start_s, id)

    def _refusal(self, method: str, headers: dict[str, str]) -> ApiError | None:
        """Why a request is not handled: a foreign host name (DNS rebinding) or page, or a body too large."""
        host = _name(headers.get("host", ""))
        if self.hosts and host not in self.hosts:
            return ApiError(403, "The Host header names another server.", code="invalid_host")
        origin = headers.get("origin")
        if origin and method not in SAFE and urlsplit(origin).netloc != headers.get("host"):
            return ApiError(403, "The request comes from another site.", code="invalid_origin")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> ApiError:
        limit = self.max_body_bytes >> 20
        return ApiError(413, f"The body has more than {limit} MiB.", code="request_too_large")

    async def _limited(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        """Run the app with a body that ends at the limit, whatever its declared length."""
        received, has_started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise _BodyTooLarge
            return message

        async def started(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self.app(scope, counted, started)
        except _BodyTooLarge:
            if not has_started:
                await reply(self._too_large())(scope, receive, send)
        except Exception:
            log.exception("a request ended by an internal error")
            if not has_started:
                message = "The server had an internal error, which its log states."
                await reply(ApiError(500, message, code="server_error"))(scope, receive, send)

    def _note(self, scope: Scope, status: int, seconds: float, id: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.figures.requests.labels(scope["method"], route, str(status)).inc()
        self.figures.seconds.labels(route).inc(seconds)
        if scope["path"] not in QUIET:
            fields = {"request_id": id, "method": scope["method"], "route": route, "status": status}
            owner = scope["state"].get("caller")
            log.info("request", extra={**fields, "ms": round(1000 * seconds, 1), "owner": owner})


class _BodyTooLarge(Exception):
    """The body exceeds the limit while it streams in."""


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].split("]")[0]
    return host.rsplit(":", 1)[0].lower()
