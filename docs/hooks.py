"""Generate pages of the site: the command line, the settings, and the tutorials as they were last executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to the files of the site."""
    """Add the generated pages: command line, settings and tutorials (called by MkDocs)."""
    files.append(File.generated(config, "command_line.md", content=command_line()))
    files.append(File.generated(config, "settings.md", content=settings()))
    for notebook in sorted((ROOT / "tutorials").glob("[0-9]*.ipynb")):
        text, pictures = page_of(notebook)
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=data))
    return files


def command_line() -> str:
    """Return the help of every command as Markdown."""
    from typer.main import get_command

    from medfewshot.cli.app import app
    from medfewshot.cli.help import EXIT_CODES, about, examples, meaning_of, names_of

    parts = [
        "# Command line",
        "",
        "Every command, with examples and all of its options. `medfewshot COMMAND --help` shows the same.",
        "",
        EXIT_CODES,
        "",
    ]
    for name, command in commands(get_command(app)).items():
        parts += [f"## {name}", "", about(command), "", "```", *examples(command), "```", ""]
        parts += ["| option | meaning |", "|---|---|"]
        parts += [f"| {_code(names_of(one))} | {_cell(meaning_of(one))} |" for one in command.params]
        parts.append("")
    return "\n".join(parts)


def settings() -> str:
    """Return the tables of all settings as Markdown."""
    from medfewshot.settings import AdaptSettings, SegmentSettings, WorkerSettings
    from medfewshot.synthetic import PopulationSettings
    from medfewshot.training.settings import (
        BackboneSettings,
        BaseDataset,
        LabelMapDataset,
        RealSettings,
        RegionDataset,
        TrainSettings,
    )

    return f"""# Settings

Each setting is an option on the command line, a key in a YAML file, and a keyword argument in Python.

```
medfewshot adapt --support-dir annotated/ --config settings.yaml -o model/
```

with, for example,

```yaml
learner: finetune
steps: 400
labels: {{1: liver, 6: spleen}}
budget_seconds: 600
spacing_mm: 2
```

An option on the command line wins over the file. `configs/adapt.yaml` in the repository contains every key
with its default.

## Adaptation

{table_of(AdaptSettings, "adapt")}

## Segmentation

{table_of(SegmentSettings, "segment")}

`segment` and `evaluate`:

{table_of(WorkerSettings, "segment")}

## Training

{table_of(TrainSettings, "train")}

`backbone`:

{table_of(BackboneSettings, "train")}

`tasks: synthetic`:

{table_of(PopulationSettings, "train")}

`tasks: real`:

{table_of(RealSettings, "train")}

Each data set in `datasets`:

{table_of(BaseDataset, "train")}

`tasks: regions` and `tasks: label_maps` have the same settings. A data set of `regions`:

{table_of(RegionDataset, "train")}

A data set of `label_maps`:

{table_of(LabelMapDataset, "train")}
"""


def table_of(model: Any, command: str) -> str:
    """Return the settings of a model; without an option if the command has none of that name."""
    from typer.main import get_command

    from medfewshot.cli.app import app
    from medfewshot.settings import settings_table

    parameters = commands(get_command(app))[command].params
    known = {one for parameter in parameters for one in (*parameter.opts, *parameter.secondary_opts)}
    return re.sub(r"`(--[\w-]+)`", lambda match: match[0] if match[1] in known else "", settings_table(model))


def commands(group: Any, before: str = "") -> dict[str, Any]:
    """Name -> command; those of groups as ``group command``."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= commands(command, f"{before}{name} ") if inner else {f"{before}{name}": command}
    return found


def page_of(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown and pictures of an executed notebook."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_filename(str(notebook))
    pictures = {}
    for name, data in resources.get("outputs", {}).items():
        unique = f"{notebook.stem}_{name}"
        text = text.replace(f"({name})", f"({unique})")
        pictures[unique] = data
    return re.sub(r"\x1b\[[0-9;]*m", "", text), pictures


def _code(names: str) -> str:
    return ", ".join(f"<code>{name}</code>" for name in names.replace("|", "&#124;").split(", "))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
