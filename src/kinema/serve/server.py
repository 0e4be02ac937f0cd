"""Runs the HTTP side and the workers of one machine until it is told to stop."""

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from filelock import FileLock, Timeout

from kinema.errors import ServeError
from kinema.serve.api.app import make_app, make_server
from kinema.serve.api.context import Server
from kinema.serve.api.middleware import LOOPBACK
from kinema.serve.log import log_json
from kinema.serve.settings import ServerSettings, WorkerSettings
from kinema.serve.store import keys
from kinema.serve.supervisor import Supervisor

log = logging.getLogger(__name__)

DRAIN_S = 10
"""Time for replies that have begun when the server stops."""


def serve(settings: ServerSettings, workers: Sequence[WorkerSettings], *, drain_wait_s: float = 0.0) -> int:
    """The exit code, after SIGTERM or Ctrl-C.

    `drain_wait_s` is the time between the first "not ready" and the end, for load balancers. Raises
    `ServeError` for a port in use, a second server on one folder, and a public address without keys.
    """
    log_json()
    with folder_of_one_server(settings), _socket(settings) as bound:
        server = make_server(settings)
        check_keys(server)
        supervisor = Supervisor(workers)
        supervisor.start()
        try:
            port = bound.getsockname()[1]
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            print(f"Kinema is at http://{host}:{port} (API at http://{host}:{port}/v1)", flush=True)
            asyncio.run(_run_http(server, bound, drain_wait_s))
        finally:
            supervisor.stop()
            server.database.close()
    return 0 if supervisor.failure is None else 1


def work(workers: Sequence[WorkerSettings]) -> int:
    """Run workers alone; the exit code after SIGTERM or Ctrl-C."""
    log_json()
    supervisor = Supervisor(workers)
    supervisor.start()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(0.5) and supervisor.failure is None:
        continue
    supervisor.stop()
    return 0 if supervisor.failure is None else 1


async def _run_http(server: Server, bound: socket.socket, drain_wait_s: float) -> None:
    config = uvicorn.Config(
        make_app(server),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        proxy_headers=False,
    )
    http = uvicorn.Server(config)
    http.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()

    def drain() -> None:
        server.is_draining = True  # not ready from now on
        loop.call_later(drain_wait_s, setattr, http, "should_exit", True)

    serving = asyncio.create_task(http.serve([bound]))
    while not http.started and not serving.done():
        await asyncio.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGINT):  # after uvicorn has set its own
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(drain))
    await serving


@contextmanager
def folder_of_one_server(settings: ServerSettings) -> Iterator[None]:
    """Hold the folder of a server with an SQLite store. Raises `ServeError` if another server has it."""
    settings.storage.data.mkdir(parents=True, exist_ok=True)
    if settings.storage.store:
        yield
        return
    lock = FileLock(settings.storage.data / "serve.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ServeError(
            f"another server runs on {settings.storage.data}: stop it, or use another --data "
            "(several servers share a --store in Postgres)"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _socket(settings: ServerSettings) -> Iterator[socket.socket]:
    """The bound socket of the server. Raises `ServeError`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's delay off (40 ms a reply) only for sockets that name their protocol.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            if error.errno == errno.EADDRINUSE:
                raise ServeError(f"{where} is in use by another program: use another --port") from None
            raise ServeError(f"cannot listen at {where}: {error.strerror}") from None
        yield bound


def check_keys(server: Server) -> None:
    """Raise `ServeError` for an address that others can reach, without a key."""
    settings = server.settings
    if settings.host not in LOOPBACK and not keys.exist(server.database):
        raise ServeError(
            f"--host {settings.host} can be reached by others, and there is no key: create one first "
            f"(kinema keys create NAME --data {settings.storage.data})"
        )
