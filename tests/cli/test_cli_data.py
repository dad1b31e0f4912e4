"""``medfewshot data``: public sets, without any network."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import monai.apps
import pytest
from monai.apps import DecathlonDataset

from medfewshot.datasets import public
from medfewshot.synthetic import write_blob_dataset

NAME = "Task04_Hippocampus"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def offline(url, filepath, hash_val, hash_type, progress):
        Path(filepath).write_bytes(b"the first half")
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(monai.apps, "download_url", offline)


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """An archive of blobs in MSD layout, with what macOS adds; MONAI's table names its checksum."""
    made = tmp_path / "made"
    write_blob_dataset(made / NAME, 2, shape=(8, 8, 8), labels=1)
    (made / NAME / "imagesTr" / "._blob_000.nii.gz").write_bytes(b"litter")
    path = tmp_path / "made.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(made / NAME, NAME)
    shutil.rmtree(made)
    monkeypatch.setitem(DecathlonDataset.md5, NAME, hashlib.md5(path.read_bytes()).hexdigest())
    return path


def test_every_set_is_one_that_monai_knows():
    assert public.PUBLIC_SETS.keys() == DecathlonDataset.resource.keys()
    assert all(public.checksum_of(name) for name in public.PUBLIC_SETS)


def test_list(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "dataset.json").write_text("{}")
    done = run("data", "list", "-o", tmp_path)
    assert done.code == 0, done.err
    (row,) = [line.split() for line in done.out.splitlines() if NAME in line]
    assert row == [NAME, "MR", "anterior,", "posterior", "27", "MB", "yes"]
    assert "licence of all: CC BY-SA 4.0" in done.out
    found = json.loads(run("data", "list", "-o", tmp_path, "--json").out)
    assert {one["name"] for one in found["sets"] if one["there"] == "yes"} == {NAME}


def test_no_network_is_one_line_with_a_remedy(run, tmp_path):
    done = run("data", "fetch", NAME, "-o", tmp_path / "sets")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"{NAME}: cannot be downloaded (Name or service not known); get {NAME}.tar elsewhere" in done.err
    assert str(tmp_path / "sets" / NAME) in done.err
    assert "27 MB; licence CC BY-SA 4.0" in done.out  # told before anything is downloaded
    assert list((tmp_path / "sets").iterdir()) == []


def test_fetch_leaves_a_data_set_and_uses_it_the_next_time(run, tmp_path, archive, monkeypatch):
    asked = []

    def download(url, filepath, hash_val, hash_type, progress):
        asked.append((url, hash_val, hash_type))
        assert Path(tempfile.gettempdir()).parent == sets  # not where large archives may not fit
        shutil.copy(archive, filepath)

    sets = tmp_path / "sets"
    monkeypatch.setattr(monai.apps, "download_url", download)
    before = tempfile.tempdir
    done = run("data", "fetch", NAME, "-o", sets, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"folder": str(sets / NAME), "fetched": True, "labelled": 2}
    assert asked == [(DecathlonDataset.resource[NAME], DecathlonDataset.md5[NAME], "md5")]
    assert tempfile.tempdir == before
    assert [path.name for path in sets.iterdir()] == [NAME]
    assert not list(sets.rglob("._*"))
    done = run("data", "fetch", NAME, "-o", sets)
    assert (done.code, len(asked)) == (0, 1)
    assert "is there already, nothing was downloaded; 2 labelled scans" in done.out
    assert run("inspect", sets / NAME).code == 0


def test_an_archive_from_elsewhere_needs_no_network(run, tmp_path, archive):
    (tmp_path / "sets").mkdir()
    given = tmp_path / "sets" / f"{NAME}.tar"
    shutil.copy(archive, given)
    assert run("data", "fetch", NAME, "-o", tmp_path / "sets", "-q").code == 0
    assert (tmp_path / "sets" / NAME / "dataset.json").is_file()
    assert given.is_file()


def test_an_archive_that_is_another_is_refused(run, tmp_path, archive):
    (tmp_path / f"{NAME}.tar").write_bytes(archive.read_bytes()[:-1])
    done = run("data", "fetch", NAME, "-o", tmp_path)
    assert done.code == 2
    assert "MD5 differs" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / NAME).exists()


def test_wrong_words(run, tmp_path, monkeypatch):
    assert "did you mean" in run("data", "fetch", "Task04_Hipocampus", "-o", tmp_path).err
    (tmp_path / NAME).mkdir()
    assert "contains no dataset.json" in run("data", "fetch", NAME, "-o", tmp_path).err
    (tmp_path / "file").touch()
    assert "is a file; give a folder" in run("data", "fetch", NAME, "-o", tmp_path / "file").err
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    assert "0.0 GB free" in run("data", "fetch", "Task03_Liver", "-o", tmp_path).err
