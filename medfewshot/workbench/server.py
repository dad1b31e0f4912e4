"""The server of the workbench: the page, its data, and the address with a token that opens it."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from medfewshot.errors import InputError
from medfewshot.workbench.guard import Guard, sentence
from medfewshot.workbench.project import Project
from medfewshot.workbench.routes import Desk

if TYPE_CHECKING:
    from medfewshot.workbench.jobs import Jobs

LOCAL = "127.0.0.1"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_VIEWER = "niivue.umd.js"


def build_app(project: Project, jobs: Jobs, *, token: str, host: str = LOCAL) -> Starlette:
    """Build the ASGI application; ``token`` is the secret of this run."""
    page = files("medfewshot.workbench") / "page"
    texts = {one.name: one.read_bytes() for one in page.iterdir() if one.is_file()}
    texts[_VIEWER] = (files("medfewshot.report.page") / "assets" / _VIEWER).read_bytes()

    async def static(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in texts:
            return sentence(404, "There is no such file.")
        return Response(texts[name], media_type=_TYPES.get(Path(name).suffix, "application/octet-stream"))

    async def missing(request: Request, _: Exception) -> Response:
        return sentence(404, "There is no such address.")

    async def wrong_method(request: Request, _: Exception) -> Response:
        return sentence(405, "This address does not take such a request.")

    return Starlette(
        routes=[Route("/", static), Route("/static/{name}", static), *Desk(project, jobs).routes()],
        middleware=[Middleware(Guard, token=token, host=host)],
        exception_handlers={404: missing, 405: wrong_method},
    )


def free_port(host: str, port: int) -> socket.socket:
    """Open a listening socket. Port 0 means any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise InputError(f"{host}:{port}: cannot be used ({reason})", "give another port", setting="port") from None
    return listener


def make_server(app: Starlette) -> uvicorn.Server:
    """Make a server of ``app`` that tells nothing about itself."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2,
        lifespan="off", ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)
    app.state.stopping = lambda: server.should_exit  # streams of events end by themselves
    return server


def serve(project: Project, jobs: Jobs, *, host: str = LOCAL, port: int = 0, ready: Callable[[str], None]) -> None:
    """Serve the page until the program is interrupted.

    Args:
        project: What the page works on.
        jobs: Its jobs; a running one is cancelled at the end.
        host: Address to bind to. Anything but this machine's own lets others on the network in, if they know the token.
        port: 0 takes a free one.
        ready: Receives the address, with the token.

    Raises:
        InputError: The address cannot be used.
    """
    token = secrets.token_urlsafe(24)
    app = build_app(project, jobs, token=token, host=host)
    listener = free_port(host, port)
    shown = {"0.0.0.0": LOCAL, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    ready(f"http://{shown}:{listener.getsockname()[1]}/?token={quote(token)}")
    try:
        make_server(app).run(sockets=[listener])
    finally:
        jobs.cancel()
        listener.close()
