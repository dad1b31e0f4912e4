"""Every command in README, docs, tutorials, notes, the bundle's README and messages names things that exist."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Sequence

import pytest
from commands import assert_can_be_typed
from packaging.requirements import Requirement

from lab.published import ROOT, Command, commands_of, published

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NEEDED = [Requirement(text) for text in sum(EXTRAS.values(), PROJECT["dependencies"])]
KNOWN = {one.name.lower() for one in NEEDED} | {"setuptools", "uv", "nnunetv2"}
"""Packages that may be named: those of pyproject.toml, and a few that are installed beside it."""
TAKES_VALUE = {"-c", "-d", "--find-links", "--index-url", "--extra-index-url", "--torch-backend"}
OTHERS = {"monailabel", "export", "git", "gpg", "twine", "mkdir", ".", "echo", "grep", "nvidia-cuda-mps-control"}
"""Programs of others, whose arguments are not checked here."""
COMMANDS = list(dict.fromkeys(published()))


def check(words: Sequence[str], *, whole: bool) -> None:
    """Check one command by its program."""
    program, *rest = words
    if program == "uv":
        assert rest[0] == "tool"
        program, *rest = rest
    if program == "medfewshot":
        if "..." not in rest:  # a part of a line, in a sentence
            assert_can_be_typed(rest, whole=whole)
    elif program.rpartition("/")[2] in ("pip", "tool"):
        assert rest[0] in ("install", "download")
        check_requirements(rest[1:])
    elif program == "make":
        targets = [word for word in rest if "=" not in word]
        assert targets
        assert all(re.search(rf"^{re.escape(target)}:", MAKEFILE, re.M) for target in targets), targets
    elif program in ("python", "python3", "py", "torchrun"):
        check_python(rest)
    elif program == "docker":
        check_docker(rest)
    else:
        assert program in OTHERS, program


def check_requirements(words: Sequence[str]) -> None:
    """Check that pip can find each requirement: a folder, a file, or a package that is on an index."""
    words = [*words]
    while words:
        word = words.pop(0)
        if word in TAKES_VALUE:
            value = words.pop(0)
            assert word != "-c" or (ROOT / value).is_file(), value
        elif word == "-r":
            assert (ROOT / words.pop(0)).is_file()
        elif match := re.fullmatch(r"(\.|.*\.whl)(?:\[(.*)\])?", word):
            assert set((match[2] or "").split(",")) <= {*EXTRAS, ""}, f"no such extra: {word}"
        elif not word.startswith("--no-"):
            name = Requirement(word).name.lower()
            assert name != PROJECT["name"], f"{word}: no index has it"
            assert name in KNOWN, f"{name} is in no list of pyproject.toml"


def check_python(words: Sequence[str]) -> None:
    """Check that the module after -m, or the script, exists."""
    if "-m" not in words:
        assert any((ROOT / folder / words[0]).is_file() for folder in (".", "tutorials")), words[0]
        return
    module, *rest = words[words.index("-m") + 1 :]
    own = module.startswith(("lab.", "medfewshot"))  # to look into other packages would import them
    assert importlib.util.find_spec(module if own else module.split(".")[0]), module
    if module == "medfewshot" and "..." not in rest:
        assert_can_be_typed(rest)


def check_docker(words: Sequence[str]) -> None:
    """Check that a build has a file, in this folder; after the image's name in a run comes a command line of ours."""
    if words[0] == "build":
        assert words[-1] == "."
        assert "-f" not in words
        assert (ROOT / "Dockerfile").is_file()
    else:
        assert words[0] == "run"
        assert_can_be_typed(words[words.index("medfewshot") + 1 :])


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_published_command_can_be_typed(command):
    check(command.words, whole=command.whole)


def test_commands_are_found_wherever_they_are_published():
    pages = {command.page for command in COMMANDS}
    assert {"README.md", "docs/install.md", "docs/many_scans.md", "tutorials/05_monai.py"} <= pages
    assert {"medfewshot/bundle/templates/README.md", "medfewshot/workers.py"} <= pages


def test_blocks_sentences_and_operators(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.published.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "Run `pip install\n.` or `medfewshot`.\n\n```\nmedfewshot a b \\\n    c > d.json || echo 'x # y'  # why\n```\n"
        "```python\nmake = 1\n```\n```\na/b.nii.gz\n```\n"
    )
    assert [*commands_of(page)] == [
        Command("page.md", ("medfewshot", "a", "b", "c"), whole=True),
        Command("page.md", ("echo", "x # y"), whole=True),
        Command("page.md", ("pip", "install", "."), whole=False),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "pip install medfewshot[monai]",
        "pip install .[nothing]",
        "pip install -r nowhere.txt",
        "pip install left-pad",
        "make nothing",
        "python -m lab.nothing",
        "medfewshot nothing",
        "medfewshot segment scans/ --nothing",
        "docker build nowhere",
        "curl address",
    ],
)
def test_a_wrong_command_is_found(words):
    with pytest.raises(AssertionError):
        check(words.split(), whole=False)
