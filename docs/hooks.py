"""Generate pages of the site: the command line, the settings, and the tutorials as they were last executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

EXAMPLES = {
    "inspect": "medfewshot inspect annotated/",
    "adapt": "medfewshot adapt --support-dir annotated/ --labels 1=liver,6=spleen -o model/",
    "segment": "medfewshot segment scans/ --segmenter model/ -o out/ --resume",
    "evaluate": "medfewshot evaluate out/ --reference labels/ -o scores/",
    "report": "medfewshot report out/ --reference labels/",
    "demo": "medfewshot demo -o demo/",
    "learners": "medfewshot learners",
    "train": "medfewshot train configs/train/cpu.yaml -o runs/cpu",
    "benchmark": "medfewshot benchmark configs/benchmark/small.yaml -o runs/small",
    "label-app": "medfewshot label-app app/ --labels 1=liver,2=spleen",
    "data list": "medfewshot data list -o data/",
    "data fetch": "medfewshot data fetch Task04_Hippocampus -o data/",
}
"""One example for each command. The build fails if a command has none or an example has an unknown option."""


def on_files(files: Files, config: Any) -> Files:
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
    """The help of every command as Markdown, with an example each."""
    from typer.main import get_command

    from medfewshot.cli.app import EXIT_CODES, app

    found = commands(get_command(app))
    if set(EXAMPLES) != set(found):
        raise ValueError(f"docs/hooks.py: EXAMPLES and commands differ: {sorted(set(EXAMPLES) ^ set(found))}")
    parts = [
        "# Command line",
        "",
        "Every command, with an example and all of its options. `medfewshot COMMAND --help` shows the same.",
        "",
    ]
    parts += [EXIT_CODES.replace("**", "`"), ""]
    for name in EXAMPLES:
        command = found[name]
        check_example(name, command)
        parts += [f"## {name}", "", _prose(command.help or ""), "", "```", EXAMPLES[name], "```", ""]
        parts += ["| option | meaning |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name != "option":
                names = f"`{parameter.metavar or parameter.name.upper()}`"
            parts.append(f"| {names} | {_cell(getattr(parameter, 'help', None) or '')} |")
        parts.append("")
    return "\n".join(parts)


def settings() -> str:
    """The tables of all settings as Markdown."""
    from medfewshot.settings import AdaptSettings, SegmentSettings
    from medfewshot.synthetic import PopulationSettings
    from medfewshot.training.settings import BackboneSettings, BaseDataset, RealSettings, TrainSettings

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
"""


def table_of(model: Any, command: str) -> str:
    """The settings of a model; without an option if the command has none of that name."""
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


def check_example(name: str, command: Any) -> None:
    """Raise ValueError if the example does not parse."""
    words = EXAMPLES[name].removeprefix(f"medfewshot {name}").split()
    options = {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word not in options]
    if unknown or not EXAMPLES[name].startswith(f"medfewshot {name}"):
        raise ValueError(f"docs/hooks.py: the example of {name} has unknown options {unknown}")


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


def _prose(text: str) -> str:
    """Help as paragraphs: single line breaks are spaces."""
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
