"""Build the wheel and the source archive of a commit, byte for byte the same each time.

    python -m lab.release -o dist/                  # of HEAD
    python -m lab.release --check                   # build twice; compare the bytes and the lists of files

Needs git and the package ``build``. The sources come from ``git archive``, so files that git does not know stay out.
All time stamps come from the commit. The build tools have the versions of ``constraints.txt``. setuptools stores
owners and times of files in the source archive, so this module packs that archive again without them. The wheel is
built from the archive.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MADE = ("PKG-INFO", "setup.cfg", ".egg-info/")
"""What setuptools adds to the source archive."""
LONGEST_SECONDS = 600


def build(output: Path, *, commit: str = "HEAD") -> list[Path]:
    """Build the wheel and the source archive of a commit.

    Args:
        output: Folder for the two files; made if needed.
        commit: What to build.

    Returns:
        The source archive and the wheel.

    Raises:
        SystemExit: The build failed, with what it printed.
    """
    output.mkdir(parents=True, exist_ok=True)
    time = int(_git("log", "-1", "--format=%ct", commit))
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        source, built = Path(folder, "source"), Path(folder, "built")
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as archive:
            archive.extractall(source, filter="data")
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")},
            "SOURCE_DATE_EPOCH": str(time),
            "PIP_CONSTRAINT": str(source / "constraints.txt"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", built, source], env=environment, umask=0o022,
            capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"the build failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        (archive_path,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
        results = [output / archive_path.name, output / wheel.name]
        results[0].write_bytes(packed_again(archive_path, time))
        results[1].write_bytes(wheel.read_bytes())
    return results


def packed_again(archive: Path, time: int) -> bytes:
    """Return a gzipped tar archive with its members in order of name, without owners, and with one time stamp."""
    plain = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mtime = member.type, member.size, time
            clean.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(clean, old.extractfile(member) if member.isfile() else None)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=9, mtime=time) as stream:
        stream.write(plain.getvalue())
    return packed.getvalue()


def missing(archive: Path, wheel: Path, commit: str = "HEAD") -> list[str]:
    """List the files of the commit that the archive lacks, those of the package that the wheel lacks, and additions."""
    tracked = set(_git("ls-tree", "-r", "--name-only", commit).decode().split("\n")) - {""}
    with tarfile.open(archive) as opened:
        packed = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    with zipfile.ZipFile(wheel) as opened:
        shipped = {name for name in opened.namelist() if ".dist-info/" not in name}
    ours = {name for name in tracked if name.startswith("medfewshot/")}
    added = {name for name in packed - tracked if not any(part in name for part in MADE)} | (shipped - ours)
    texts = [f"{archive.name}: lacks {name}" for name in sorted(tracked - packed)]
    texts += [f"{wheel.name}: lacks {name}" for name in sorted(ours - shipped)]
    return texts + [f"not a file of the commit: {name}" for name in sorted(added)]


def check() -> list[str]:
    """Build twice, in two folders, and list what differs or is missing."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one, other = build(Path(first)), build(Path(second))
        texts = [f"{a.name}: two builds differ" for a, b in zip(one, other, strict=True) if digest(a) != digest(b)]
        _print(one)
        return texts + missing(*one)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _print(paths: list[Path]) -> None:
    for path in paths:
        print(f"{digest(path)}  {path.name}  {path.stat().st_size / 1e6:.1f} MB")


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def main() -> int:
    """Build, or check that building is reproducible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("dist"))
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if not given.check:
        _print(build(given.output))
        return 0
    problems = check()
    print(*problems, sep="\n")
    print("reproducible and complete" if not problems else "NOT reproducible or complete")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
