"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from kinema.errors import KinemaError
from kinema.serve.store.base import IdempotencyError, QuotaError

log = logging.getLogger(__name__)

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 404: "not_found", 405: "method_not_allowed"}


class ErrorBody(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The reply to a request that failed."""

    error: ErrorBody


class ApiError(Exception):
    """A reply with an error status. `param` names the field of the request that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}


def reply(error: ApiError) -> JSONResponse:
    """The response of an error. Clients retry 409, 429 and 5xx by themselves, so those that a retry does not
    help forbid it."""
    kind = KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = error.code or CODES.get(error.status)
    body = ErrorBody(message=error.message, type=kind, param=error.param, code=code)
    headers = dict(error.headers)
    if error.status in (409, 500):
        headers["x-should-retry"] = "false"
    return JSONResponse(ErrorReply(error=body).model_dump(), error.status, headers)


def of_validation(error: ValidationError | RequestValidationError) -> ApiError:
    """The first problem that a schema found, with the field."""
    first: Any = error.errors()[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    param = ".".join(where) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
        return ApiError(400, message, param=param, code="missing_required_parameter")
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"Invalid '{param}': {message}.", param=param, code="invalid_value")


def add_handlers(app: FastAPI) -> None:
    """Answer every exception of a route in the one shape."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, error: ApiError) -> JSONResponse:
        return reply(error)

    @app.exception_handler(ValidationError)
    async def _schema(_: Request, error: ValidationError) -> JSONResponse:
        return reply(of_validation(error))

    @app.exception_handler(RequestValidationError)
    async def _query(_: Request, error: RequestValidationError) -> JSONResponse:
        return reply(of_validation(error))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        answer = reply(ApiError(error.status_code, str(error.detail)))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(KinemaError)
    async def _kinema(_: Request, error: KinemaError) -> JSONResponse:
        return reply(ApiError(400, str(error), param=param_of(str(error)), code="invalid_value"))

    @app.exception_handler(QuotaError)
    async def _quota(_: Request, error: QuotaError) -> JSONResponse:
        headers = {"retry-after": "30"}
        return reply(ApiError(429, str(error), code="rate_limit_exceeded", headers=headers))

    @app.exception_handler(IdempotencyError)
    async def _idempotency(_: Request, error: IdempotencyError) -> JSONResponse:
        message = f"Idempotency key '{error}' was used with another request."
        return reply(ApiError(409, message, code="idempotency_key_reused"))

    @app.exception_handler(PoolTimeout)
    async def _busy(_: Request, error: PoolTimeout) -> JSONResponse:
        headers = {"retry-after": "5"}
        return reply(ApiError(503, "The server is busy.", code="store_unavailable", headers=headers))

    @app.exception_handler(DBAPIError)
    async def _store(_: Request, error: DBAPIError) -> JSONResponse:
        reason = str(error.orig).strip().splitlines()[0]
        log.error("the store does not answer: %s", reason)
        is_full = "full" in reason
        message = "The server's disk is full." if is_full else "The server's store does not answer."
        return reply(ApiError(503, message, code="store_unavailable", headers={"retry-after": "5"}))


FIELDS = {
    "sides of": "size",
    "frames (": "seconds",
    "the prompt": "prompt",
    "negative prompt": "negative_prompt",
    "unknown sampler": "sampler",
    "unknown model": "model",
    "region": "region",
    "window": "window",
    "seed": "seed",
    "steps": "steps",
    "strength": "strength",
}
"""Fields by words of the messages that are about them."""


def param_of(message: str) -> str | None:
    """The field of a request that a message of the pipeline is about."""
    return next((field for words, field in FIELDS.items() if words in message), None)
