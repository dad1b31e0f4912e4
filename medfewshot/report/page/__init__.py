"""One self-contained HTML page about a run: a table, plots, pictures and a three-plane viewer; no network to open it.

Everything that came from a file or a header is escaped, and a content security policy lets the browser run the page's
two scripts and nothing else. The viewer is NiiVue (``assets/niivue.umd.js``, BSD-2-Clause, see
``assets/NIIVUE-LICENSE.txt``); it needs WebGL 2, and where that is missing the page says so and keeps its pictures.
"""

from medfewshot.report.page.content import Flag, Page, PageCase, Score, StructureRow, Viewer
from medfewshot.report.page.flags import raise_flags
from medfewshot.report.page.prepared import load_case, prepare_case, prepared_path, preview_uri
from medfewshot.report.page.volumes import DisplayVolumes, display_volumes, voxel_budget
from medfewshot.report.page.write import render_page, write_page

__all__ = [
    "DisplayVolumes",
    "Flag",
    "Page",
    "PageCase",
    "Score",
    "StructureRow",
    "Viewer",
    "display_volumes",
    "load_case",
    "prepare_case",
    "prepared_path",
    "preview_uri",
    "raise_flags",
    "render_page",
    "voxel_budget",
    "write_page",
]
