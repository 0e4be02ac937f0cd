"""Models, policy, health, figures, and the session of the page."""

import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool

from kinema.serve.api.bodies import read_body
from kinema.serve.api.context import COOKIE, Server, not_found, read_caller, server_of
from kinema.serve.api.errors import ApiError
from kinema.serve.models import ServedModel
from kinema.serve.store import hooks, keys, videos
from kinema.serve.store.keys import Caller

router = APIRouter(tags=["server"])
Reader = Annotated[Caller, Depends(read_caller)]
MIN_FREE_BYTES = 256 << 20
SESSION_S = 30 * 86_400


class OwnModel(BaseModel):
    """What a model was trained with."""

    licence: str
    fps: float
    min_side: int
    max_side: int
    side_multiple: int
    min_frames: int
    max_frames: int
    default_width: int
    default_height: int
    default_frames: int
    steps: int
    sampler: str
    guidance: float
    vocabulary: dict[str, list[str]] = {}


class Model(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "kinema"
    kinema: OwnModel


class ModelList(BaseModel):
    """All served models, aliases too."""

    object: Literal["list"] = "list"
    data: list[Model]


class PolicyReply(BaseModel):
    """What is active on this server."""

    moderation: str
    signed_provenance: bool = False
    max_seconds: float
    unsupported: str
    needs_keys: bool


class Health(BaseModel):
    """The state of the server."""

    status: str
    reasons: list[str] = []


class PromptReading(BaseModel):
    """How a model reads a prompt."""

    text: str
    replaced: list[list[str]] = []
    unknown: list[str] = []
    num_read: int | None = None


def _model(id: str, model: ServedModel) -> Model:
    manifest = model.manifest
    height, width = manifest.default_size
    own = OwnModel(
        licence=manifest.licence,
        fps=manifest.fps,
        min_side=manifest.min_side,
        max_side=manifest.max_side,
        side_multiple=manifest.side_multiple,
        min_frames=manifest.min_frames,
        max_frames=manifest.max_frames,
        default_width=width,
        default_height=height,
        default_frames=manifest.default_frames,
        steps=manifest.steps,
        sampler=manifest.sampler,
        guidance=manifest.guidance,
        vocabulary={kind: [*words] for kind, words in manifest.vocabulary.items()},
    )
    return Model(id=id, kinema=own)


def _models(server: Server) -> dict[str, ServedModel]:
    catalogue = server.catalogue
    return catalogue.models | {alias: catalogue.models[name] for alias, name in catalogue.aliases.items()}


@router.get("/v1/models")
async def list_models(request: Request, caller: Reader) -> ModelList:
    """The served models."""
    return ModelList(data=[_model(id, model) for id, model in _models(server_of(request)).items()])


@router.get("/v1/models/{id}")
async def get_model(request: Request, id: str, caller: Reader) -> Model:
    """A served model."""
    found = _models(server_of(request))
    if id not in found:
        raise not_found("model", id)
    return _model(id, found[id])


@router.get("/v1/policy")
async def get_policy(request: Request, caller: Reader) -> PolicyReply:
    """What is active on this server."""
    server = server_of(request)
    settings = server.settings
    return PolicyReply(
        moderation=server.policy.name,
        signed_provenance=settings.signs,
        max_seconds=settings.max_seconds,
        unsupported=settings.unsupported,
        needs_keys=settings.needs_keys,
    )


@router.post("/v1/prompts/read")
async def read_prompt(request: Request, caller: Reader) -> PromptReading:
    """How a model reads a prompt, word by word; nothing is generated."""
    body = await read_body(request)
    model = server_of(request).catalogue.find(body.get("model"))
    report = model.read_prompt(str(body.get("prompt", ""))[:2000])
    if report is None:
        return PromptReading(text="")
    replaced = [[*pair] for pair in report.replaced]
    return PromptReading(
        text=report.text, replaced=replaced, unknown=[*report.unknown], num_read=report.num_read
    )


@router.post("/v1/session")
async def open_session(request: Request, response: Response) -> Health:
    """Keep a key in a cookie that scripts cannot read, so that pictures, clips and event streams of the page
    carry it."""
    server = server_of(request)
    key = str((await read_body(request)).get("key", "")).strip()
    if await server.query(keys.find, server.database, key) is None:
        raise ApiError(401, "Incorrect API key provided.", param="key")
    is_secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, key, max_age=SESSION_S, httponly=True, samesite="strict", secure=is_secure)
    return Health(status="ok")


@router.delete("/v1/session")
async def close_session(response: Response) -> Health:
    """Forget the key of the cookie."""
    response.delete_cookie(COOKIE)
    return Health(status="ok")


@router.get("/healthz", include_in_schema=False)
async def healthz() -> Health:
    """Whether the process answers."""
    return Health(status="ok")


@router.get("/readyz", include_in_schema=False)
async def readyz(request: Request, response: Response) -> Health:
    """Whether jobs can be stored and run: the store answers, the disk has room, a worker is alive."""
    server = server_of(request)
    reasons = ["the server is stopping"] if server.is_draining else []
    try:
        within_s = 3 * server.settings.lease_s
        if not await run_in_threadpool(videos.live_workers, server.database, within_s):
            reasons.append("no worker is alive")
    except DBAPIError:
        reasons.append("the store does not answer")
    if shutil.disk_usage(server.settings.storage.data).free < MIN_FREE_BYTES:
        reasons.append("the disk is full")
    response.status_code = 503 if reasons else 200
    return Health(status="not ready" if reasons else "ready", reasons=reasons)


class Figures:
    """Figures of one process and, read when they are asked for, of the store."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self.requests = Counter("kinema_http_requests", "HTTP requests", names, registry=self.registry)
        self.seconds = Counter(
            "kinema_http_request_seconds", "Time to the end of replies", ["route"], registry=self.registry
        )
        self.registry.register(self)

    def collect(self) -> Iterable[Any]:
        """The figures of the store."""
        database = self.server.database
        jobs = GaugeMetricFamily("kinema_jobs", "Jobs that wait or run", labels=["status", "priority"])
        for (status, priority), count in videos.depth(database).items():
            jobs.add_metric([status, str(priority)], count)
        yield jobs
        yield GaugeMetricFamily(
            "kinema_oldest_job_seconds", "Age of the oldest queued job", videos.oldest_s(database)
        )
        live = len(videos.live_workers(database, 3 * self.server.settings.lease_s))
        yield GaugeMetricFamily("kinema_workers", "Workers that are alive", live)
        failing = hooks.num_failing(database)
        yield GaugeMetricFamily("kinema_webhooks_failing", "Deliveries that are tried again", failing)
        ended = GaugeMetricFamily("kinema_jobs_ended", "Jobs that ended in the last hour", labels=["outcome"])
        mean = GaugeMetricFamily(
            "kinema_job_seconds", "Their mean time from start to end", labels=["outcome"]
        )
        again = 0
        for outcome, count, mean_s, lost in videos.ended_within(database, 3600.0):
            ended.add_metric([outcome], count)
            mean.add_metric([outcome], mean_s)
            again += lost
        yield ended
        yield mean
        yield GaugeMetricFamily("kinema_leases_lost", "Claims of these jobs that a worker lost", again)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """The figures in Prometheus' text format. No label holds an id or a prompt."""
    text = await run_in_threadpool(generate_latest, request.app.state.figures.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def package_version() -> str:
    """The version of Kinema."""
    try:
        return version("kinema")
    except PackageNotFoundError:
        return "0"
