"""The order of the rooms, held by a walk over the imports; and three smaller rules of the house.

Every rule is a function from source text to a list of ``"file:line: what is wrong"``, so that the tests at the end can
show that it finds a fault.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "medfewshot"
MAX_LINES = 350

# Ground floor first: a room imports only from rooms on the floors before its own. Rooms on one floor do not meet.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("types", "settings"),
    ("io", "devices", "structures", "intensities", "workers"),
    ("metrics", "datasets"),
    ("data_dictionary",),
    ("inspection",),
    ("planning",),
    ("quality", "mask_fit"),
    ("augment",),
    ("synthetic",),
    ("episodes",),
    ("backbones", "registration"),
    ("learners",),
    ("inference",),
    ("agreement", "heart"),
    ("evaluation",),
    ("training",),
    ("bundle",),
    ("report",),
    ("workflow",),
    ("api",),
    ("workbench",),
    ("integrations",),
    ("demo", "benchmark"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOT_NAMES = {"__version__"}  # what a room may take from ``medfewshot/__init__.py``

PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "pandas.read_pickle", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}


def source_files() -> list[Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    assert files, f"no sources under {PACKAGE}"
    return files


def module_of(relative: Path) -> tuple[list[str], str]:
    """``medfewshot/io/nifti.py`` -> (the package that relative imports start from, the room)."""
    parts = list(relative.with_suffix("").parts)
    package = parts[:-1]
    return package, parts[1]


def imported_modules(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those in functions and under TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def import_faults(source: str, relative: Path) -> list[str]:
    package, room = module_of(relative)
    if room == "__init__":  # the front door opens onto every room, lazily: see test_start_is_light
        return []
    if room not in FLOOR_OF:
        return [f"{relative}:1: room '{room}' has no floor yet: add it to FLOORS in tests/test_architecture.py"]
    faults = []
    for line, name in imported_modules(ast.parse(source), package):
        parts = name.split(".")
        if parts[0] != "medfewshot":
            continue
        target = parts[1] if len(parts) > 1 else None
        if target in ROOT_NAMES or target == room:
            continue
        if target not in FLOOR_OF:
            faults.append(f"{relative}:{line}: '{name}' is no room: import from the room, not from the front door")
        elif FLOOR_OF[target] >= FLOOR_OF[room]:
            faults.append(f"{relative}:{line}: '{room}' must not import '{target}', which comes later in FLOORS")
    return sorted(set(faults))


def unpickling_faults(source: str, relative: Path) -> list[str]:
    tree = ast.parse(source)
    package, _ = module_of(relative)
    faults = [
        f"{relative}:{line}: '{name}' can run code from a file: use safetensors, JSON or yaml.safe_load"
        for line, name in imported_modules(tree, package)
        if name.split(".")[0] in PICKLES or name in UNSAFE_CALLS
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        pickled = any(
            k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in node.keywords
        )
        if called in UNSAFE_CALLS or pickled:
            faults.append(f"{relative}:{node.lineno}: '{called}' can run code from a file")
    return faults


def undeclared_faults(source: str, relative: Path, declared: set[str]) -> list[str]:
    package, _ = module_of(relative)
    faults = []
    for line, name in imported_modules(ast.parse(source), package):
        top = name.split(".")[0]
        if top == "medfewshot" or top in sys.stdlib_module_names or top in declared:
            continue
        faults.append(f"{relative}:{line}: '{top}' is not among the dependencies in pyproject.toml")
    return sorted(set(faults))


def declared_modules() -> set[str]:
    """Import names of the dependencies, the optional ones included, in pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    wanted = [*project["dependencies"], *(r for name, group in extras.items() if name != "dev" for r in group)]

    def plain(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", requirement)[0]).lower()

    names = {plain(requirement) for requirement in wanted}
    installed = {
        module
        for module, distributions in packages_distributions().items()
        if any(plain(distribution) in names for distribution in distributions)
    }
    return installed | {name.replace("-", "_") for name in names}


def all_faults(rule) -> list[str]:
    faults: list[str] = []
    for path in source_files():
        faults += rule(path.read_text(encoding="utf-8"), path.relative_to(REPOSITORY))
    return faults


def test_rooms_import_downwards():
    faults = all_faults(import_faults)
    assert not faults, "imports against the order of the rooms:\n" + "\n".join(faults)


def test_nothing_is_unpickled():
    faults = all_faults(unpickling_faults)
    assert not faults, "files that could run code:\n" + "\n".join(faults)


def test_dependencies_are_declared():
    declared = declared_modules()
    faults = all_faults(lambda source, relative: undeclared_faults(source, relative, declared))
    assert not faults, "imports that a fresh installation would lack:\n" + "\n".join(faults)


def test_files_stay_short():
    def rule(source: str, relative: Path) -> list[str]:
        n = len(source.splitlines())
        return [f"{relative}:{n}: more than {MAX_LINES} lines: split the room"] if n > MAX_LINES else []

    faults = all_faults(rule)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "medfewshot, medfewshot.types, medfewshot.cli, medfewshot.settings",
            ("torch", "monai", "matplotlib", "scipy"),
        ),
        ("medfewshot.workflow, medfewshot.bundle, medfewshot.training", ("monai", "matplotlib.pyplot")),
    ],
)
def test_start_is_light(module, heavy):
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"import {module} loads {done.stdout.strip()}: import it where it is used"


# --- the rules find what they are there to find ---------------------------------------------------------------------

IO_FILE = Path("medfewshot/io/nifti.py")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import os\nfrom medfewshot.planning import plan", 2),
        ("import medfewshot.training.loop as loop", 1),
        ("from medfewshot import cli", 1),
        ("from .. import metrics", 1),
        ("from ..report.tables import write_csv", 1),
        ("def f():\n    from medfewshot.learners import LEARNERS", 2),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from medfewshot.api import x", 3),
        ("import importlib\nimportlib.import_module('medfewshot.evaluation')", 2),
        ("from medfewshot import segment", 1),
        ("import medfewshot", 1),
    ],
)
def test_a_bad_import_is_found(source, line):
    faults = import_faults(source, IO_FILE)
    assert len(faults) == 1
    assert faults[0].startswith(f"medfewshot/io/nifti.py:{line}: ")


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nfrom pathlib import Path",
        "from medfewshot.types import Volume",
        "from ..types import Volume",
        "from .. import types",
        "from . import dicom\nfrom .grid import check",
        "from medfewshot.io.grid import check",
        "from medfewshot import __version__",
    ],
)
def test_a_good_import_passes(source):
    assert import_faults(source, IO_FILE) == []


def test_rooms_on_one_floor_do_not_meet():
    assert import_faults("from medfewshot.benchmark import run", Path("medfewshot/demo.py"))
    assert import_faults("from .benchmark import run", Path("medfewshot/demo.py"))
    assert not import_faults("from .api import segment", Path("medfewshot/demo.py"))


def test_an_unknown_room_is_found():
    assert "no floor yet" in import_faults("", Path("medfewshot/attic.py"))[0]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "import torch\nx = torch.load('a.pt', weights_only=True)",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader=loader)",
    ],
)
def test_unpickling_is_found(source):
    assert unpickling_faults(source, IO_FILE)


def test_safe_loading_passes():
    source = "import numpy as np, yaml\nnp.load('a.npy', allow_pickle=False)\nyaml.safe_load(text)\nmodel.load(state)"
    assert unpickling_faults(source, IO_FILE) == []


def test_an_undeclared_dependency_is_found():
    declared = declared_modules()
    assert {"torch", "yaml", "nibabel", "SimpleITK"} <= declared
    assert undeclared_faults("import os\nimport skimage.measure", IO_FILE, declared)
    assert not undeclared_faults("import json\nimport numpy as np\nfrom yaml import safe_load", IO_FILE, declared)


def test_the_house_is_described():
    """CONTRIBUTING names every room."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    missing = [room for room in FLOOR_OF if room != "__main__" and f"`{room}`" not in text]
    assert not missing, f"add {', '.join(missing)} to the table of rooms in CONTRIBUTING.md"


def test_the_version_has_one_place():
    """``medfewshot/__init__.py``; pyproject.toml reads it, and no other file states a version of the project."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "medfewshot.__version__"}
    assert "\nversion:" not in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
