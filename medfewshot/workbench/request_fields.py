"""Numbers, boxes and JSON of a request; a wrong one is refused with a sentence."""

from __future__ import annotations

import json as json_text
import math
from typing import TypeVar

from starlette.requests import Request

from medfewshot.workbench.guard import LARGEST_TEXT, Refusal, read_body
from medfewshot.workbench.masks import Box

T = TypeVar("T")


def case(request: Request) -> str:
    """Read the name of the case; empty if none is given."""
    return request.query_params.get("case", "")


def number(request: Request, key: str, default: int) -> int:
    """Read a whole number of the address. Raises Refusal if it is something else."""
    text = request.query_params.get(key, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise Refusal(400, f"{key} is a whole number.") from None


def real(request: Request, key: str, default: float) -> float:
    """Read a finite number of the address. Raises Refusal if it is something else."""
    text = request.query_params.get(key, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refusal(400, f"{key} is a number.")
    return value


def numbers(request: Request, key: str) -> list[int]:
    """Read whole numbers of the address, separated by commas. Raises Refusal if it is something else."""
    text = request.query_params.get(key, "")
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise Refusal(400, f"{key} are whole numbers.") from None


def box(request: Request) -> Box:
    """Read the region that the address names. Raises Refusal if it is something else."""
    edges = numbers(request, "box")
    if len(edges) != 6:
        raise Refusal(400, "box has six numbers.")
    return (edges[0], edges[1]), (edges[2], edges[3]), (edges[4], edges[5])


async def json(request: Request, kind: type[T]) -> T:
    """Read the body as JSON, which must be of this kind. Raises Refusal if it is something else."""
    return parsed(await read_body(request, LARGEST_TEXT) or b"{}", kind)


def parsed(text: str | bytes, kind: type[T]) -> T:
    """Read JSON of this kind. Raises Refusal if it is something else."""
    try:
        given = json_text.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request is no JSON.") from None
    if not isinstance(given, kind):
        raise Refusal(400, "The request has another form than expected. Reload the page.")
    return given
