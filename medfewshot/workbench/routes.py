"""What the page can ask the server for. Every route is thin: project, jobs, masks and tools do the work."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from medfewshot.settings import AdaptSettings
from medfewshot.workbench import masks, tools
from medfewshot.workbench import request_fields as fields
from medfewshot.workbench.check import checks
from medfewshot.workbench.comparison import compare_example
from medfewshot.workbench.curve import advice, curve
from medfewshot.workbench.export import EXPORTS, export
from medfewshot.workbench.guard import LARGEST_MASK, Refusal, one_sentence, read_body
from medfewshot.workbench.open_scan import OpenScan, OpenScans
from medfewshot.workbench.project import Project
from medfewshot.workbench.project_file import Structure, VersionConflict
from medfewshot.workbench.uncertainty import read_uncertainty

if TYPE_CHECKING:
    from medfewshot.workbench.jobs import Jobs

EVENTS_EVERY_S = 0.5
_QUIET_EVENTS = 30
_BYTES = "application/octet-stream"


class Desk:
    """The routes of one project."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self._project, self._jobs = project, jobs
        self._scans = OpenScans(project)
        self._saving = threading.Lock()
        self._last_saved: tuple[str, int, np.ndarray] | None = None
        self._changes = 0

    def routes(self) -> list[Route]:
        """List all routes. Each answers an error with one sentence."""
        table: tuple[tuple[str, str, Any], ...] = (
            ("GET", "/api/project", self.project),
            ("PUT", "/api/structures", self.structures),
            ("GET", "/api/case", self.case),
            ("GET", "/api/scan", self.scan),
            ("GET", "/api/mask", self.mask),
            ("PUT", "/api/mask", self.save),
            ("POST", "/api/tool", self.tool),
            ("POST", "/api/review", self.review),
            ("GET", "/api/compare", self.compare),
            ("POST", "/api/learn", self.learn),
            ("POST", "/api/cancel", self.cancel),
            ("POST", "/api/export", self.export),
            ("GET", "/api/events", self.events),
        )
        return [Route(path, one_sentence(endpoint), methods=[method]) for method, path, endpoint in table]

    async def project(self, request: Request) -> Response:
        """The structures, the cases in the order of what to label next, the reviews and the job."""
        return JSONResponse(await run_in_threadpool(self._project_facts))

    def _project_facts(self) -> dict[str, Any]:
        return {
            "name": self._project.folder.resolve().name,
            "folder": str(self._project.folder.resolve()),
            "structures": [vars(one) for one in self._project.structures],
            "cases": [
                {fact: value for fact, value in vars(case).items() if fact != "scan"} for case in self._project.cases()
            ],
            "curve": curve(self._project),
            "advice": advice(self._project),
            "checks": checks(self._project),
            "examples": len(self._project.examples()),
            "formats": EXPORTS,
            "quality": AdaptSettings(**self._project.settings).quality,
            "job": self._jobs.state(),
        }

    async def structures(self, request: Request) -> Response:
        """Replace the structures. 409 if they are others by now than the page knew (``known``, as JSON)."""
        given, now = await fields.json(request, list), [vars(one) for one in self._project.structures]
        if "known" in request.query_params and fields.parsed(request.query_params["known"], list) != now:
            raise Refusal(409, "The structures were changed elsewhere. Try again, or reload the page.")
        try:
            structures = [Structure(one["name"], one["value"], one["color"]) for one in given]
        except (KeyError, TypeError) as error:
            raise Refusal(400, "A structure needs a name, a value and a colour.") from error
        await run_in_threadpool(self._project.set_structures, structures)
        self._changes += 1
        return JSONResponse({"structures": [vars(one) for one in self._project.structures]})

    async def case(self, request: Request) -> Response:
        """What the page must know about a scan before it shows it."""
        name = fields.case(request)
        scan = await run_in_threadpool(self._scans.get, name)
        return JSONResponse(await run_in_threadpool(scan.facts, fields.number(request, "channel", 0)))

    async def scan(self, request: Request) -> Response:
        """The voxels of a scan as a NIfTI file on the axes of the page."""
        scan = await run_in_threadpool(self._scans.get, fields.case(request))
        return StreamingResponse(scan.file(fields.number(request, "channel", 0)), media_type=_BYTES)

    async def mask(self, request: Request) -> Response:
        """The mask of a case or its draft, the draft alone, or the draft's uncertainty (``layer``); 204 without it.

        Headers: version, number of the draft, finished slices and their axis.
        """
        name, layer = fields.case(request), request.query_params.get("layer", "")
        body, facts = await run_in_threadpool(self._read_mask, name, layer)
        headers = {"x-facts": json.dumps(facts)}
        if body is None:
            return Response(status_code=204, headers=headers)
        return Response(body, media_type=_BYTES, headers=headers)

    def _read_mask(self, name: str, layer: str) -> tuple[bytes | None, dict[str, Any]]:
        readers: dict[str, Callable[[str], np.ndarray | None]] = {
            "draft": self._project.read_draft,
            "uncertainty": partial(read_uncertainty, self._project),
        }
        grid = self._scans.get(name).grid
        with self._saving:
            labels = readers.get(layer, self._project.read_labels)(name)
            is_draft = labels is not None and self._project.mask_path(name) is None
            saved = self._project.facts(name)  # another program may have changed the mask: it is a new version now
            draft = self._project.case(name).draft
        drawn, plane = None, None
        if saved.drawn is not None and saved.axis is not None:
            plane = int(grid.orientation[saved.axis, 0])
            drawn = sorted(grid.file_index((plane, index)) for index in saved.drawn)
        facts = {"version": saved.version, "draft": draft, "is_draft": is_draft, "drawn": drawn, "plane": plane}
        return None if labels is None else masks.pack(grid.to_ras(labels)), facts

    async def save(self, request: Request) -> Response:
        """Save a drawn region.

        409 with the current version if somebody else saved in between; 400 if it was drawn on another ``scan`` (stamp).
        """
        name, box = fields.case(request), fields.box(request)
        version, plane = fields.number(request, "version", 0), fields.number(request, "plane", -1)
        drawn = None if request.query_params.get("drawn", "all") == "all" else fields.numbers(request, "drawn")
        body = await read_body(request, LARGEST_MASK)
        scan = await run_in_threadpool(self._scans.get, name)
        if request.query_params.get("scan", scan.stamp) != scan.stamp:
            raise Refusal(400, f"The file of {name} was replaced. Restore it, or reload the page: this was not saved.")
        new = await run_in_threadpool(self._save, name, box, body, version, drawn, plane)
        self._changes += 1
        return JSONResponse({"version": new})

    def _save(self, name: str, box: masks.Box, body: bytes, version: int, drawn: list[int] | None, plane: int) -> int:
        scan = self._scans.get(name)
        masks.check_box(box, scan.grid.shape)
        region = masks.unpack(body, box)
        with self._saving:
            labels = self._labels(name, version, scan)
            masks.place(labels, box, region, grid=scan.grid)
            axis = None
            if drawn is not None:
                if plane not in (0, 1, 2) or not all(0 <= index < scan.grid.shape[plane] for index in drawn):
                    raise Refusal(400, "The finished slices are not inside the scan. Reload the page.")
                drawn = [scan.grid.file_index((plane, index)) for index in drawn]
                axis = scan.grid.file_axis(plane)
            new = self._project.save_mask(name, labels, version=version, drawn=drawn, axis=axis)
            self._last_saved = (name, new, labels)
            return new

    def _labels(self, name: str, version: int, scan: OpenScan) -> np.ndarray:
        """Read the labels that version ``version`` has; empty ones before the first."""
        current = self._project.facts(name).version
        if version != current:
            raise VersionConflict(current)
        if self._last_saved is not None and self._last_saved[:2] == (name, version):
            return self._last_saved[2].copy(order="K")
        stored = self._project.read_labels(name) if self._project.mask_path(name) else None
        # In the order of the file, so that nothing is turned around when it is written.
        return np.zeros(scan.volume.spatial_shape, np.uint8, order="F") if stored is None else np.asfortranarray(stored)

    async def tool(self, request: Request) -> Response:
        """Answer with the region that a drawing tool proposes, and its place in a header."""
        name, body = fields.case(request), await read_body(request, LARGEST_MASK)
        region, box = await run_in_threadpool(self._tool, name, request, body)
        if region is None:
            return JSONResponse({"threshold": box})
        edges = ",".join(str(edge) for pair in box for edge in pair)
        return Response(masks.pack(region), media_type=_BYTES, headers={"x-box": edges})

    def _tool(self, name: str, request: Request, body: bytes) -> tuple[np.ndarray | None, Any]:
        scan, which = self._scans.get(name), request.query_params.get("tool", "")
        image = scan.image(fields.number(request, "channel", 0))
        x, y, z = scan.grid.spacing_mm.tolist()
        spacing_mm = (x, y, z)
        if which == "otsu":
            return None, tools.otsu_threshold(image)
        if which == "click":
            return self._click(image, request, spacing_mm)
        box = fields.box(request)
        masks.check_box(box, scan.grid.shape)
        drawn = masks.unpack(body, box)
        if which == "fill":
            plane = fields.number(request, "plane", 2)
            return tools.fill_between(drawn, value=fields.number(request, "value", 1), plane=min(max(0, plane), 2)), box
        if which == "grow":
            return tools.grow(image[tuple(slice(*edge) for edge in box)], drawn, spacing_mm=spacing_mm), box
        raise Refusal(400, "There is no such tool. Reload the page.")

    def _click(
        self, image: np.ndarray, request: Request, spacing_mm: tuple[float, float, float]
    ) -> tuple[np.ndarray, masks.Box]:
        seed = tuple(fields.numbers(request, "seed"))
        if len(seed) != 3 or not all(0 <= at < size for at, size in zip(seed, image.shape, strict=True)):
            raise Refusal(400, "The click is outside the scan.")
        low, high = tools.similar_range(image, seed)
        low, high = fields.real(request, "low", low), fields.real(request, "high", high)
        reach_mm, plane = fields.real(request, "reach", 30.0), fields.number(request, "plane", -1)
        if not 0 <= reach_mm <= 1e6:
            raise Refusal(400, "reach is 0 to 1000000 mm.")
        found = tools.click(
            image, seed, low=low, high=high, reach_mm=reach_mm, spacing_mm=spacing_mm,
            plane=plane if plane in (0, 1, 2) else None,
        )  # fmt: skip
        edges = [np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        x, y, z = ((int(edge[0]), int(edge[-1]) + 1) for edge in edges)
        return found[slice(*x), slice(*y), slice(*z)].astype(np.uint8), (x, y, z)

    async def review(self, request: Request) -> Response:
        """Accept, reject, send to review, or note."""
        given = await fields.json(request, dict)
        name, status, note = (given.get(key, "") for key in ("case", "status", "note"))
        if not all(isinstance(one, str) for one in (name, status, note)):
            raise Refusal(400, "A review is text.")
        seen = (given["version"], given["draft"]) if {"version", "draft"} <= given.keys() else None
        await run_in_threadpool(lambda: self._project.review(name, status=status, note=note, seen=seen))
        self._changes += 1
        return JSONResponse({})

    async def compare(self, request: Request) -> Response:
        """A picture of an example against what another predicts. Header: which, its slice on the page, the Dice."""
        name = fields.case(request)
        found = await run_in_threadpool(compare_example, self._project, name)
        grid = (await run_in_threadpool(self._scans.get, name)).grid
        plane = int(grid.orientation[found.axis, 0])
        facts = {
            "other": found.other,
            "plane": plane,
            "slice": grid.file_index((plane, found.index)),
            "dice": found.dice if np.isfinite(found.dice) else None,
        }
        return Response(found.picture, media_type="image/jpeg", headers={"x-facts": json.dumps(facts)})

    async def learn(self, request: Request) -> Response:
        """Start to learn from all examples; drafts follow, the open case first. The project keeps a given quality."""
        given = await fields.json(request, dict)
        case = given.get("case")
        if "quality" in given:
            await run_in_threadpool(self._project.change_settings, {"quality": given["quality"]})
        job = await run_in_threadpool(lambda: self._jobs.start_learn(open_case=case if isinstance(case, str) else None))
        return JSONResponse({"job": job})

    async def cancel(self, request: Request) -> Response:
        """Stop the job."""
        await run_in_threadpool(self._jobs.cancel)
        return JSONResponse({})

    async def export(self, request: Request) -> Response:
        """Export what was reviewed, in the chosen formats."""
        formats = [str(one) for one in await fields.json(request, list)]
        written = await run_in_threadpool(export, self._project, formats, self._project.folder / "export")
        return JSONResponse({"files": [str(file) for file in written.files], "notes": list(written.notes)})

    async def events(self, request: Request) -> Response:
        """Server-sent events: the job's state whenever it changes, and a mark when cases changed."""

        async def stream() -> AsyncIterator[str]:
            last, quiet = "", 0
            while not (request.app.state.stopping() or await request.is_disconnected()):
                text = json.dumps({"job": self._jobs.state(), "changes": self._changes}, default=str)
                quiet = quiet + 1 if text == last else 0
                if text != last or quiet % _QUIET_EVENTS == 0:
                    yield f"data: {text}\n\n"
                last = text
                await asyncio.sleep(EVENTS_EVERY_S)

        return StreamingResponse(stream(), media_type="text/event-stream")
