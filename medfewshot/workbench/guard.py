"""What stands between the network and the project: token, host name, size limits, headers, and errors as one sentence.

The server is for the person at this machine. A web page of somebody else must not reach it, whatever its name resolves
to, and a mistake of ours must not show the inside of the program.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medfewshot.errors import InputError
from medfewshot.workbench.project_file import VersionConflict

LOGGER = logging.getLogger(__name__)
LARGEST_TEXT = 1 << 20
LARGEST_MASK = 1 << 28
"""Bytes of a request: JSON, and a compressed mask."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src data:; "
    "connect-src 'self' data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_ANY = ("0.0.0.0", "::", "")


class Refusal(Exception):
    """A request that is answered with a status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """ASGI middleware: refuse other hosts and callers without the token, and add the security headers.

    Args:
        app: What it protects.
        token: Secret of this run. The page sends it with every request for data.
        host: The address that the server is bound to.
    """

    def __init__(self, app: ASGIApp, *, token: str, host: str) -> None:
        self._app, self._token, self._host = app, token.encode(), host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        refusal = self._refusal(Request(scope))
        answer: ASGIApp = self._app if refusal is None else sentence(refusal.status, refusal.sentence)
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Refusal | None:
        if not self._known_host(request.headers.get("host", "")):
            return Refusal(421, "This address is not the workbench's. Use the address that the terminal shows.")
        if request.url.path.startswith("/static/"):  # program text that is the same for everybody
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path == "/" and request.method == "GET":
            given = request.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), self._token):
            return Refusal(401, "This address has no valid token. Use the address that the terminal shows.")
        return None

    def _known_host(self, header: str) -> bool:
        """Return whether the request names this machine. Other names may be a domain that was pointed at it later."""
        name = header.rsplit(":", 1)[0] if not header.endswith("]") else header
        name = name.strip("[]").lower()
        if name in ("localhost", "127.0.0.1", "::1") or name == self._host.lower():
            return True
        return self._host in _ANY and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def sentence(status: int, text: str, **more: Any) -> Response:
    """Make an error as the page reads it: ``{"error": text, ...}``."""
    return JSONResponse({"error": text, **more}, status_code=status)


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The body of a request.

    Raises:
        Refusal: It is larger than ``most_bytes``. No more than that is read.
    """
    body = bytearray()
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes:
        raise Refusal(413, f"The request is larger than {most_bytes >> 20} MB.")
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise Refusal(413, f"The request is larger than {most_bytes >> 20} MB.")
    return bytes(body)


Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def one_sentence(endpoint: Endpoint) -> Endpoint:
    """Turn what an endpoint raises into an answer of one sentence; the traceback goes to the terminal."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return sentence(refusal.status, refusal.sentence)
        except VersionConflict as conflict:
            return sentence(409, "This mask was changed in another tab or program.", current=conflict.current)
        except InputError as error:
            return sentence(400, str(error))
        except OSError as error:
            return sentence(507, _disk_sentence(error))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            LOGGER.exception("%s %s", request.method, request.url.path)
            return sentence(500, "The workbench made an error; details are in its terminal. Nothing saved was lost.")

    return answered


def _disk_sentence(error: OSError) -> str:
    place = error.filename or "the project"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: {place} was not written. Free some space; the page keeps what you drew."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{place} cannot be written: no permission. Change it, or copy the project; the page keeps what you drew."
        )
    return f"{place}: {error.strerror or 'cannot be used'}. The page keeps what you drew."
