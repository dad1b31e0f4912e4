"""Execute the Dockerfile without a container engine, each instruction in a clean root; then run it.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm ROOT
    python -m lab.studies.container ROOT --share /etc/pip.conf /etc/resolv.conf

Needs Linux and root. ``ROOT`` stands for the base image. ``--share`` names files and folders of this machine that
building may see, such as the settings of pip; the variables PIP_* are passed too. COPY takes the last commit, without
what .dockerignore excludes. The runs have another user, no network, a read-only root and read-only scans. They must
work, and must not be able to write elsewhere. What this cannot show: the base image itself, the layers, and CUDA.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

CHECKOUT = Path(__file__).resolve().parents[2]
USER, PATH = 12345, "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
MAKE_SCANS = """
from pathlib import Path
from medfewshot.synthetic import make_ct_cohort
made = make_ct_cohort("/data/made", 3, shape=(40, 32, 24), spacing_mm=8.0)
for kind in ("images", "labels"):
    for number, path in enumerate(sorted((made / f"{kind}Tr").glob("*.nii.gz"))):
        new = Path("/data/scans" if kind == "images" else "/data/rest")
        folder = Path("/data/annotated", kind) if number < 2 else new
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
"""
CANNOT = """
import socket
from pathlib import Path
for path in ("/opt/medfewshot/x", "/data/scans/x", "/x"):
    try:
        Path(path).write_text("x")
    except OSError as error:
        print("refused:", error)
    else:
        raise SystemExit(f"{path} could be written")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=3)
except OSError as error:
    print("no network:", error)
else:
    raise SystemExit("there is a network")
"""


@dataclass
class Stage:
    """One stage of the Dockerfile and the root that it has become."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield (keyword, rest) of a Dockerfile, with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            keyword, _, rest = line.strip().partition(" ")
            yield keyword.upper(), rest.strip()


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Return whether .dockerignore excludes a path; the last pattern that fits decides."""
    result = False
    for pattern in patterns:
        plain = pattern.removeprefix("!").removeprefix("**/")
        parts = [path, *path.split("/")] if pattern.startswith("**/") else [path, path.split("/")[0]]
        if any(fnmatch.fnmatch(part, plain) for part in parts):
            result = not pattern.startswith("!")
    return result


def make_context(folder: Path) -> Path:
    """Write the files of the last commit that .dockerignore lets through into ``folder``."""
    lines = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=CHECKOUT, capture_output=True, check=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ignored(path.relative_to(folder).as_posix(), patterns):
            path.unlink()
    return folder


def in_root(stage: Stage, words: Sequence[str], *, share: Sequence[str] = (), run: bool = False) -> str:
    """Run a command in the root of a stage.

    Args:
        stage: Gives root, variables and folder.
        words: Program and arguments.
        share: Paths of this machine that the root shows too.
        run: As a container runs: another user, no network, a read-only root, ``/data/scans`` read-only.

    Returns:
        What the command printed.
    """
    root = shlex.quote(str(stage.root))
    lines = ["set -e"]
    for path in share:
        kind = "mkdir -p" if Path(path).is_dir() else f"mkdir -p {root}{Path(path).parent} && touch"
        lines += [f"{kind} {root}{path}", f"mount --bind {path} {root}{path}"]
    if run:
        lines += [f"mount --bind {root} {root}", f"mount --bind {root}/data {root}/data"]
        lines += [f"mount --bind {root}/data/scans {root}/data/scans", f"mount -o remount,bind,ro {root}/data/scans"]
        lines += [f"mount -o remount,bind,ro {root}", f"mount -t tmpfs tmpfs {root}/tmp"]
    lines += [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    ours = {} if run else {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    own = {"PATH": PATH, "HOME": "/root", **ours, **stage.variables}
    shell = f"cd {shlex.quote(stage.folder)} && exec {shlex.join(words)}"
    user = f"--userspec={USER}:{USER} " if run else ""
    lines.append(f"exec chroot {user}{root} /usr/bin/env -i {shlex.join(f'{k}={v}' for k, v in own.items())}"
                 f" /bin/sh -c {shlex.quote(shell)}")  # fmt: skip
    unshare = ["unshare", "--mount", *(["--net"] if run else []), "/bin/sh", "-c", "\n".join(lines)]
    begun = time.monotonic()
    done = subprocess.run(unshare, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(f"{time.monotonic() - begun:6.0f} s  {' '.join(words)[:100]}", flush=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def execute(base: Path, work: Path, arguments: dict[str, str], share: Sequence[str]) -> Stage:
    """Execute every instruction; return the last stage."""
    context, given = make_context(work / "context"), dict(arguments)
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for keyword, text in instructions((CHECKOUT / "Dockerfile").read_text(encoding="utf-8")):
        values = {**given, "PATH": PATH, **stage.variables}
        filled = Template(text).safe_substitute(values)
        if keyword == "ARG":
            name, _, default = text.partition("=")
            stage.variables[name] = given.setdefault(name, default)
        elif keyword == "FROM":
            name = filled.split()[-1] if " AS " in filled else "last"
            stage = stages[name] = Stage(work / name)
            subprocess.run(["cp", "-a", base, stage.root], check=True)
            python = stage.root / "usr/local/bin/python"
            if not python.exists():
                python.symlink_to("/usr/bin/python3")
            print(f"FROM {filled}: a copy of {base}")
        elif keyword == "COPY":
            *sources, target = shlex.split(filled)
            origin = stages[sources.pop(0).partition("=")[2]].root if sources[0].startswith("--from=") else context
            place = Path(os.path.normpath(f"{stage.root}{stage.folder if target.startswith('.') else ''}/{target}"))
            for source in sources:
                whole = (origin / source.lstrip("/")).resolve()
                shutil.copytree(whole, place, symlinks=True, dirs_exist_ok=True) if whole.is_dir() else shutil.copy(
                    whole, place
                )
        elif keyword == "RUN":
            in_root(stage, ["/bin/sh", "-c", text], share=share)
        elif keyword == "ENV":
            stage.variables |= dict(word.partition("=")[::2] for word in shlex.split(filled))
        elif keyword == "WORKDIR":
            stage.folder = text
            (stage.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif keyword == "USER":
            stage.user = text
        elif keyword in ("ENTRYPOINT", "CMD"):
            setattr(stage, "entry" if keyword == "ENTRYPOINT" else "command", json.loads(text))
        elif keyword == "HEALTHCHECK":
            stage.health = json.loads(text.partition("CMD ")[2])
        else:
            raise SystemExit(f"{keyword}: this script does not know the instruction")
    return stage


def run(stage: Stage) -> None:
    """Run the container's own commands, a segmentation, and what must fail."""
    print(f"the image runs as {stage.user}; the runs below as {USER}:{USER}, which has no name in the image")
    assert stage.user.split(":")[0] not in ("", "0", "root")
    in_root(stage, ["/opt/medfewshot/bin/python", "-c", MAKE_SCANS])
    (stage.root / "data/out").mkdir()
    os.chown(stage.root / "data/out", USER, USER)
    print(in_root(stage, [*stage.entry, *stage.command], run=True).splitlines()[0])
    print(in_root(stage, stage.health, run=True).strip())
    words = ["segment", "scans", "--support-dir", "annotated", "-o", "out", "--steps", "20", "--quiet"]
    in_root(stage, [*stage.entry, *words], run=True)
    assert any((stage.root / "data/out").glob("case_*.nii.gz")), "no label map was written"
    print(in_root(stage, ["python", "-c", CANNOT], run=True).strip())


def main() -> int:
    """Build and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--share", nargs="*", default=[], metavar="PATH")
    parser.add_argument("--build-arg", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    arguments = dict(word.partition("=")[::2] for word in given.build_arg)
    with tempfile.TemporaryDirectory(prefix="container-") as folder:
        Path(folder).chmod(0o755)
        stage = execute(given.base.resolve(), Path(folder), arguments, given.share)
        size = subprocess.run(["du", "-sm", stage.root / "opt"], capture_output=True, text=True, check=True).stdout
        print(f"/opt/medfewshot: {size.split()[0]} MB")
        run(stage)
    print("every instruction and every run ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
