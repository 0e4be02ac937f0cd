"""Bodies of requests: JSON, multipart and urlencoded forms with bracketed names, all read into one shape."""

import json
import re
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinema.serve.api.errors import ApiError

MAX_FILES, MAX_FIELDS, MAX_TEXT_BYTES = 8, 256, 1 << 20
MAX_DEPTH = 32
NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


async def read_body(request: Request) -> dict[str, Any]:
    """The body as nested dicts and lists; files are `UploadFile`s in their places.

    Raises `ApiError` (400) for a body that cannot be read.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        try:
            form = await request.form(
                max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_TEXT_BYTES
            )
        except HTTPException as error:
            raise ApiError(400, f"The form could not be read: {error.detail}", code="invalid_form") from None
        return unbracket(form.multi_items())
    return json_object(await request.body())


def json_object(text: bytes) -> dict[str, Any]:
    """The object in a JSON body; {} for an empty one. Raises `ApiError`."""
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body is JSON, but not an object.", code="invalid_json")
    _check_text(value, 0)
    return value


def _check_text(value: Any, depth: int) -> None:
    """Raise `ApiError` for nesting that is too deep, and for text that no database can store."""
    if depth > MAX_DEPTH:
        raise ApiError(400, f"The body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth)
            _check_text(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth + 1)
    elif isinstance(value, str) and ("\0" in value or value.encode(errors="ignore").decode() != value):
        raise ApiError(400, "The body contains a NUL character or half a character.", code="invalid_value")


def unbracket(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Nested values from bracketed names: `a[b]`, `a[]`, `a[][b]` and `a[0][b]`.

    In `a[][b]` a new item of the list begins when the present one has the field.
    """
    result: dict[str, Any] = {}
    for name, value in items:
        match = NAME.fullmatch(name)
        if match is None or match[2].count("[") > MAX_DEPTH:
            raise ApiError(400, f"'{name[:60]}' is not a field name.", param=name[:60], code="invalid_form")
        _check_text(name, 0)
        _check_text(value, 0)
        _insert(result, match[1], re.findall(r"\[([^\[\]]*)\]", match[2]), value)
    return result


def _insert(into: dict[str, Any], name: str, path: list[str], value: Any) -> None:
    if not path:
        into[name] = value
        return
    head, rest = path[0], path[1:]
    if head and not head.isdigit():
        _insert(_container(into, name, dict), head, rest, value)
        return

    items: list[Any] = _container(into, name, list)
    if not rest:
        items.append(value)
        return
    is_new = not items or (not head and len(rest) == 1 and rest[0] in items[-1])
    is_new = is_new or (head.isdigit() and int(head) >= len(items))
    if is_new:
        items.append({})
    item = items[int(head)] if head.isdigit() and int(head) < len(items) else items[-1]
    if not isinstance(item, dict) or not rest[0]:
        raise ApiError(
            400, f"The field '{name}' is both a list and a value.", param=name, code="invalid_form"
        )
    _insert(item, rest[0], rest[1:], value)


def _container(into: dict[str, Any], name: str, kind: type) -> Any:
    found = into.setdefault(name, kind())
    if not isinstance(found, kind):
        raise ApiError(400, f"The field '{name}' has values of two kinds.", param=name, code="invalid_form")
    return found


def is_file(value: Any) -> bool:
    """Whether a value of a body is an uploaded file."""
    return isinstance(value, UploadFile)
