"""The command line as a whole: its commands, and how what ends a command early becomes one line and an exit code."""

from __future__ import annotations

import errno
import io
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from medfewshot import __version__
from medfewshot.cli.adapt import adapt, segment
from medfewshot.cli.annotate import annotate
from medfewshot.cli.data import data
from medfewshot.cli.demo import demo, label_app
from medfewshot.cli.evaluate import evaluate, inspect, report
from medfewshot.cli.help import Command, Group
from medfewshot.cli.label import export, suggest
from medfewshot.cli.methods import benchmark, learners, train
from medfewshot.cli.options import option_name
from medfewshot.cli.study import compare, curve, describe
from medfewshot.errors import InputError

EXIT_PARTLY, EXIT_INPUT = 1, 2
"""Some volumes of a folder failed, or the disk is full; input or settings cannot be used and nothing was written."""
EXIT_INTERRUPTED = 130
RESUMABLE = {
    "annotate": "everything drawn is saved; the same command opens it again",
    "segment": "what was finished is kept, segment --resume continues from there",
    "curve": "what was finished is kept, and the same command continues from there",
    "train": "train --resume continues from the last checkpoint",
    "benchmark": "what was finished is kept, and the same command continues from there",
    "data": "nothing of the set was left behind",
}
"""What is left of a command that was interrupted."""


class _Commands(Group):
    """Turns what ends a command early into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                if not sys.warnoptions:  # what torch, MONAI and nibabel warn developers of; -W shows it
                    warnings.simplefilter("ignore")
                    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its list of fonts
                    logging.getLogger("highdicom").setLevel(logging.ERROR)  # what a scan's header lacks
                return super().invoke(ctx)
        except InputError as error:
            _fail(error.render(spell=option_name, noun="option"), EXIT_INPUT)
        except KeyboardInterrupt:
            kept = RESUMABLE.get(ctx.invoked_subcommand or "", "run it again")
            _fail(f"interrupted; {kept}", EXIT_INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has seen enough
                raise
            code = EXIT_PARTLY if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else EXIT_INPUT
            _fail(f"{error.filename or 'output'}: {error.strerror or error}; check the disk and the path", code)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"medfewshot: {' '.join(text.split())}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    name="medfewshot",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Segment medical scans like the few that you labelled: label one to ten scans, get the rest.

    The commands below are in the order of work; `medfewshot COMMAND --help` explains one. For research only: not a
    medical device.

    Example:
        medfewshot demo
        medfewshot inspect annotated/
        medfewshot adapt --support-dir annotated/ -o model/
        medfewshot segment scans/ --segmenter model/ -o out/
        medfewshot evaluate out/ --reference labels/
    """,
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Take the options of the program itself."""
    if version:
        typer.echo(f"medfewshot {__version__}")
        raise typer.Exit


SECTIONS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Try it": {"demo": demo},
    "Look at your scans": {"inspect": inspect, "data": data},
    "Adapt and segment": {"adapt": adapt, "segment": segment},
    "Check and show": {"evaluate": evaluate, "compare": compare, "report": report, "describe": describe},
    "Label more scans": {
        "annotate": annotate,
        "suggest": suggest,
        "curve": curve,
        "export": export,
        "label-app": label_app,
    },
    "Compare and pre-train methods": {"learners": learners, "benchmark": benchmark, "train": train},
}
"""Heading in the help -> the commands below it, in the order of work."""
for heading, commands in SECTIONS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=heading)
        else:
            app.command(name, cls=Command, rich_help_panel=heading)(command)


def main() -> None:
    """Entry point of the console script. What a terminal has no letter for is escaped: no name may end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stops: list[int] = []

    def stop(number: int, _: Any) -> NoReturn:
        stops.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # what a cluster sends before it ends a job
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a job in the background of a shell ignores it
        signal.signal(signal.SIGINT, stop)
    try:
        app(prog_name="medfewshot")
    except (KeyboardInterrupt, Exception):  # before or after a command, or compiled code made another error of it
        if not stops:
            raise
        typer.echo("medfewshot: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
