"""``medfewshot data``: public sets, listed and fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.help import Command, Group
from medfewshot.cli.options import Json, Quiet
from medfewshot.errors import InputError

Folder = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FOLDER", help="Folder of the sets. Default: the variable MEDFEWSHOT_DATA, else data."
    ),
]

data = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Get public data sets of labelled scans.

    Example:
        medfewshot data list
        medfewshot data fetch Task04_Hippocampus -o data/
    """,
)


@data.command("list", cls=Command)
def list_sets(output: Folder = None, quiet: Quiet = False, json: Json = False) -> None:
    """List the data sets, with size and licence.

    Example:
        medfewshot data list
    """
    from medfewshot.cli.console import Console
    from medfewshot.datasets.public import PUBLIC_SETS, checksum_of, is_there

    console, folder = Console(quiet, json), _folder(output)
    rows = [
        {
            "name": one.name,
            "modality": one.modality,
            "structures": ", ".join(one.structures),
            "size": one.size_text,
            "licence": one.licence,
            "checksum": "known" if checksum_of(one.name) else "not known",
            "there": "yes" if is_there(one.name, folder) else "no",
        }
        for one in PUBLIC_SETS.values()
    ]
    console.rows(f"Public data sets; there: in {folder}", rows, below=("licence", "checksum"))
    console.json({"folder": str(folder), "sets": rows})


@data.command("fetch", cls=Command)
def fetch_set(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A set of `medfewshot data list`, e.g. Task04_Hippocampus.")
    ],
    output: Folder = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Download a data set, check it and unpack it.

    Its folder can be given to inspect, benchmark and --support-dir. A set that exists already is used as it is. Without
    a network, get NAME.tar elsewhere and put it into the folder: the same command checks and unpacks it.

    Example:
        medfewshot data fetch Task04_Hippocampus -o data/
    """
    from medfewshot.cli.console import Console
    from medfewshot.datasets import read_dataset
    from medfewshot.datasets.public import fetch, find_set

    console, folder = Console(quiet, json), _folder(output)
    one = find_set(name)
    structures = ", ".join(one.structures)
    console.say(f"{name}: {one.modality}, {structures}; about {one.size_text}; licence {one.licence} ({one.source})")
    fetched = fetch(name, folder, progress=not quiet and console.err.is_terminal)
    found = read_dataset(folder / name)
    how = "fetched" if fetched else "is there already, nothing was downloaded"
    console.say(f"{folder / name}: {how}; {len(found.labelled)} labelled scans")
    console.json({"folder": str(folder / name), "fetched": fetched, "labelled": len(found.labelled)})


def _folder(given: Path | None) -> Path:
    """Check that the path is no file."""
    folder = given or Path(os.environ.get("MEDFEWSHOT_DATA") or "data")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file", "give a folder", setting="output")
    return folder
