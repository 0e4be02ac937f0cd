"""The application: routes, their OpenAPI document, and what runs beside them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from kinema.serve.api import batches, errors, events, library, meta, videos
from kinema.serve.api.context import Server
from kinema.serve.api.middleware import LOOPBACK, Gate
from kinema.serve.api.page import page_router
from kinema.serve.api.schemas import CreateCharacter, CreateVideo, EditVideo, ExtendVideo, RemixVideo
from kinema.serve.background import Background
from kinema.serve.blobs import Blobs
from kinema.serve.models import Catalogue, describe
from kinema.serve.policy import make_policy
from kinema.serve.settings import ServerSettings
from kinema.serve.store.database import Database
from kinema.serve.store.jobs import SqlStore

BODIES: tuple[type[BaseModel], ...] = (
    CreateVideo,
    EditVideo,
    ExtendVideo,
    RemixVideo,
    CreateCharacter,
    library.UploadFileBody,
    library.AddWebhook,
    batches.CreateBatch,
)
REF = "#/components/schemas/{model}"


def make_server(settings: ServerSettings) -> Server:
    """The parts of a server. Raises `ServeError`, and `ModelError` for a model that is incomplete."""
    settings.storage.data.mkdir(parents=True, exist_ok=True)
    database = Database(settings.storage.store_url)
    models = {name: describe(name, path) for name, path in settings.models.items()}
    return Server(
        settings,
        database,
        SqlStore(database, lease_s=settings.lease_s),
        Blobs(settings.storage),
        Catalogue(models, dict(settings.aliases)),
        make_policy(settings.policy),
    )


def make_app(server: Server) -> FastAPI:
    """The application of a server."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        background = Background(server.database, server.blobs, server.settings)
        background.start()
        try:
            yield
        finally:
            server.is_draining = True
            background.stop()

    app = FastAPI(
        title="Kinema", version=meta.package_version(), lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.server = server
    app.state.figures = meta.Figures(server)
    errors.add_handlers(app)
    for router in (
        library.router,
        batches.router,
        events.router,
        videos.router,
    ):  # fixed paths before /videos/{id}
        app.include_router(router, prefix="/v1")
    app.include_router(meta.router)
    app.include_router(page_router())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]

    settings = server.settings
    is_local = settings.host in LOOPBACK
    hosts = (
        frozenset({*LOOPBACK, settings.host, *settings.hosts}) if is_local or settings.hosts else frozenset()
    )
    app.add_middleware(Gate, hosts=hosts, max_body_bytes=settings.max_upload_bytes, figures=app.state.figures)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schemas of bodies that FastAPI does not read itself."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        models: tuple[type[BaseModel], ...] = (*BODIES, errors.ErrorReply)
        for model in models:
            schema = model.model_json_schema(ref_template=REF)
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        schemas.pop("HTTPValidationError", None)
        error = {"content": {"application/json": {"schema": {"$ref": REF.format(model="ErrorReply")}}}}
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {"description": "An error", **error}
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
