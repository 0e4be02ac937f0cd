"""The studio: the page in the browser, a client of the public API."""

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse

from kinema.serve.api.context import not_found

FOLDER = Path(__file__).parent.parent / "studio"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def page_router() -> APIRouter:
    """The routes of the page and its files. Nothing outside the list of these files is served."""
    files = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in TYPES}
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page() -> FileResponse:
        return _file(files["index.html"])

    @router.api_route("/studio/{name:path}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> FileResponse:
        if name not in files:
            raise not_found("file", name)
        return _file(files[name])

    return router


def _file(path: Path) -> FileResponse:
    """The reply with a file, which browsers ask for again after an upgrade."""
    return FileResponse(path, media_type=TYPES[path.suffix], headers={"cache-control": "no-cache"})
