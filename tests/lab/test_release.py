"""Releases: a source archive without owners and times, and the files that an archive or a wheel lacks."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from lab import release

TIME = 1_700_000_000


def archive(path: Path, names: list[str], *, owner: str = "", time: float = 1.5) -> Path:
    with tarfile.open(path, "w:gz") as stream:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.uname, member.mtime, member.uid = len(name), owner, time, len(owner)
            stream.addfile(member, io.BytesIO(name.encode()))
    return path


def test_owners_times_and_order_do_not_matter(tmp_path):
    one = archive(tmp_path / "one.tar.gz", ["p/a.py", "p/b.py"])
    other = archive(tmp_path / "other.tar.gz", ["p/b.py", "p/a.py"], owner="somebody", time=7.25)
    packed = release.packed_again(one, TIME)
    assert packed == release.packed_again(other, TIME)
    assert packed != release.packed_again(one, TIME + 1)
    with tarfile.open(fileobj=io.BytesIO(packed)) as stream:
        assert [(member.name, member.mtime, member.uid) for member in stream] == [
            ("p/a.py", TIME, 0),
            ("p/b.py", TIME, 0),
        ]
        assert stream.extractfile("p/b.py").read() == b"p/b.py"


def test_missing_and_added_files_are_named(tmp_path, monkeypatch):
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "medfewshot").mkdir()
    for name in ("medfewshot/a.py", "medfewshot/data.json", "README.md"):
        (tmp_path / name).write_text(name)
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "a")):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    packed = archive(
        tmp_path / "x.tar.gz", ["x-1/medfewshot/a.py", "x-1/medfewshot/data.json", "x-1/PKG-INFO", "x-1/stray"]
    )
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as stream:
        for name in ("medfewshot/a.py", "x-1.dist-info/METADATA"):
            stream.writestr(name, name)
    monkeypatch.setattr("lab.release.ROOT", tmp_path)
    assert release.missing(packed, tmp_path / "x.whl") == [
        "x.tar.gz: lacks README.md", "x.whl: lacks medfewshot/data.json", "not a file of the commit: stray"
    ]  # fmt: skip


def test_a_failed_build_says_what_it_printed(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.release.sys.executable", "/bin/false")
    with pytest.raises(SystemExit, match="the build failed"):
        release.build(tmp_path)
