"""Results are whole or absent, and as small as their values allow."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from io_samples import SHAPE, ramp, write_dicom, write_nifti

from medfewshot.errors import InputError
from medfewshot.io import (
    FORMATS,
    atomic_path,
    read_image,
    read_label,
    strict_json,
    write_array,
    write_label,
    write_text,
)
from medfewshot.io.files import move_into_place
from medfewshot.types import Volume


@pytest.fixture
def like(tmp_path: Path) -> Volume:
    return read_image(write_nifti(tmp_path / "in" / "a.nii.gz") if (tmp_path / "in").mkdir() is None else "")


@pytest.mark.parametrize(
    ("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.int32)]
)
def test_the_smallest_dtype_that_holds_the_labels(tmp_path: Path, like: Volume, highest: int, dtype: type) -> None:
    labels = np.zeros(SHAPE, np.int64)
    labels[0, 0, 0] = highest
    write_label(tmp_path / "b.nii.gz", labels, like)
    assert nib.load(tmp_path / "b.nii.gz").get_data_dtype() == dtype
    assert read_label(tmp_path / "b.nii.gz").data.max() == highest


def test_labels_that_do_not_fit(tmp_path: Path, like: Volume) -> None:
    for labels in (ramp() / 2, ramp() - 1, ramp((4, 5)), ramp().astype(np.int64) * 2**31):
        with pytest.raises(ValueError, match="labels"):
            write_label(tmp_path / "b.nii.gz", labels, like)
    with pytest.raises(ValueError, match="does not fit"):
        write_array(tmp_path / "b.nii.gz", np.zeros((2, 3, 4)), like)
    assert not (tmp_path / "b.nii.gz").exists()


@pytest.mark.parametrize("name", ["b.jpg", "b.dcm", "b.mhd", "b.xyz", "b", "b.png"])
def test_formats_that_cannot_hold_the_result(tmp_path: Path, like: Volume, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: "):
        write_label(tmp_path / name, ramp(), like)


def test_a_dicom_series_becomes_nifti_on_its_grid(tmp_path: Path) -> None:
    write_dicom(tmp_path / "series")
    volume = read_image(tmp_path / "series")
    write_label(tmp_path / "out" / "b.nii.gz", ramp(), volume)
    np.testing.assert_allclose(nib.load(tmp_path / "out" / "b.nii.gz").affine, volume.affine, atol=1e-4)


def test_a_volume_without_a_header_is_written_by_its_affine(tmp_path: Path) -> None:
    bare = Volume(ramp()[None].astype(np.float32), np.diag([-2.0, 3.0, 4.0, 1.0]))
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_label(tmp_path / f"b{suffix}", ramp() > 5, bare)
        np.testing.assert_allclose(read_label(tmp_path / f"b{suffix}").affine, bare.affine)


def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.nii.gz"
    write_text(path, "old")

    def crash() -> None:
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of this kind are POSIX's")
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    """A writer that hides its file, as safetensors does, would lock colleagues out of a shared segmenter."""
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "weights.bin") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.bin").stat().st_mode) == 0o640


def test_a_writer_that_fails_leaves_no_half_file(tmp_path: Path, like: Volume) -> None:
    def full_disk(path: Path, data: np.ndarray, like: Volume) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_label(tmp_path / "out" / "b.nii.gz", ramp(), like, formats=(replace(FORMATS[0], write=full_disk),))
    assert list((tmp_path / "out").iterdir()) == []


def test_text_is_utf8_whatever_the_machine(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "0.5 µm\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "0.5 µm\n".encode()


def test_importing_the_room_loads_no_heavy_library() -> None:
    script = (
        "import sys, medfewshot.io; print([m for m in ('torch', 'monai', 'nibabel', 'SimpleITK') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_rename_that_is_refused_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    """As on Windows while a virus scanner looks at the new file."""
    refusals = [PermissionError(13, "in use"), PermissionError(13, "in use")]

    def busy(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        os.replace(source, target)

    (tmp_path / "a").write_text("new")
    move_into_place(tmp_path / "a", tmp_path / "b", replace=busy, pauses_s=(0, 0))
    assert (tmp_path / "b").read_text() == "new"


def test_a_rename_that_is_always_refused_fails(tmp_path: Path) -> None:
    def never(source: Path, target: Path) -> None:
        raise PermissionError(13, "in use")

    with pytest.raises(PermissionError):
        move_into_place(tmp_path / "a", tmp_path / "b", replace=never, pauses_s=(0,))


def test_strict_json():
    assert json.loads(strict_json({1: float("nan"), "p": (np.inf, 2, True, None, "x")})) == {
        "1": None,
        "p": [None, 2, True, None, "x"],
    }
