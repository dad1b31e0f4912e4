"""``medfewshot annotate``: open the workbench in the browser."""

from __future__ import annotations

import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfewshot.cli.options import Quiet
from medfewshot.errors import InputError

if TYPE_CHECKING:
    from medfewshot.cli.console import Console

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
DEMO_FOLDER = Path("annotate-demo")
DEMO_SCANS = 8
PATIENCE_S = 30.0
"""How long the program waits at its end for a job to stop."""


def annotate(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Scans, a data set with labels, what `segment` wrote, or a project.",
            show_default=False,
        ),
    ] = None,
    *,
    project: Annotated[
        Path | None,
        typer.Option("-o", "--project", metavar="FOLDER", help="Folder of the project. Default: beside the scans."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Open made-up CT scans with nothing labelled.")] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; others than 127.0.0.1 let other computers in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Draw, learn, correct and export in the browser.

    Draw a structure in one scan and press Learn: the other scans get drafts. Correct the worst, learn again, export.
    Everything stays on this machine. Each stroke is saved; the same command opens it again.

    Example:
        medfewshot annotate scans/
        medfewshot annotate --demo
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} not installed", "pip install starlette uvicorn")
    if (folder is None) != demo:
        raise InputError("annotate needs a folder of scans", "name one, or use --demo")
    from medfewshot.cli.console import Console
    from medfewshot.io import claimed
    from medfewshot.workbench.jobs import Jobs
    from medfewshot.workbench.server import serve
    from medfewshot.workbench.start import open_folder

    console = Console(quiet)
    opened = open_folder(_demo_scans(console, project or DEMO_FOLDER) if folder is None else folder, project)
    if host not in LOCAL_NAMES:
        console.error(
            "warning: others on the network who know the address can see and change these scans; it is not encrypted"
        )

    def ready(address: str) -> None:
        console.say(f"project in {opened.folder}: {len(opened.cases())} scans")
        typer.echo(f"workbench at {address}")
        console.say("Ctrl-C stops it; everything drawn is saved")
        if not no_browser:
            webbrowser.open(address)

    jobs = Jobs(opened)
    with claimed(opened.folder) as free:
        if not free:
            raise InputError(f"{opened.folder}: another workbench has opened it", "use its page, or stop it first")
        try:
            serve(opened, jobs, host=host, port=port, ready=ready)
        finally:  # the server cancelled the job; a thread of torch must not outlive the program
            jobs.wait(PATIENCE_S)


def _demo_scans(console: Console, folder: Path) -> Path:
    """Return the scans of the demo, without their labels."""
    from medfewshot.synthetic import make_ct_cohort

    scans = folder / "scans"
    if not scans.is_dir():
        with console.progress("Making scans") as progress:
            made = make_ct_cohort(folder / "made", DEMO_SCANS, progress=progress.at("making scans").update)
        (made / "imagesTr").rename(scans)
    return scans
