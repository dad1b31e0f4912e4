"""Random damage to good files: they are read, or refused in one line that names the file; nothing else happens.

``make test`` tries a fixed hundred of each kind; ``make fuzz`` tries new ones for as long as it is let.
"""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path

import corpus_dicom
import numpy as np
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfewshot.errors import InputError
from medfewshot.io import EXPORTS, read_image, read_label
from medfewshot.io.formats.dicom_seg import DICOM_SEG
from medfewshot.io.formats.rtstruct import RTSTRUCT
from medfewshot.types import Volume

pytestmark = pytest.mark.filterwarnings("ignore")
HEADER = 500
"""Most of the damage goes where the meaning is."""


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Volume:
    """The scan of the DICOM label maps."""
    return read_image(corpus_dicom.series(tmp_path_factory.mktemp("scan")))


@pytest.fixture(scope="module")
def originals(tmp_path_factory, scan) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    image, label = toys.make_scan(0)
    paths = {
        "odd.nii": toys.save_nifti(folder / "a.nii", label),
        "odd.nii.gz": toys.save_nifti(folder / "a.nii", label),
        "odd.nrrd": toys.save_itk(folder / "a.nrrd", label),
        "odd.mha": toys.save_itk(folder / "a.mha", label),
        "odd.png": toys.save_itk(folder / "a.png", image[:, :, 5].astype(np.uint8)),
        "odd.tif": toys.save_itk(folder / "a.tif", image[:, :, 5].astype(np.uint8)),
        "odd.jpg": toys.save_itk(folder / "a.jpg", image[:, :, 5].astype(np.uint8)),
        "odd.bmp": toys.save_itk(folder / "a.bmp", image[:, :, 5].astype(np.uint8)),
        "odd.dcm": corpus_dicom.series(folder, keep=[3]) / "000.dcm",
    }
    names = {205: "liver", 420: "spleen"}
    for name, export in (("odd.seg.nrrd", "seg_nrrd"), ("seg.dcm", "dicom_seg"), ("rt.dcm", "rtstruct")):
        paths[name] = folder / name
        EXPORTS[export].write(paths[name], label, names, scan, {})
    return {name: path.read_bytes() for name, path in paths.items()}


edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "flip", "delete", "insert", "cut"]),
        st.one_of(st.integers(0, HEADER), st.integers(0, 10_000)),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def damaged(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    data = bytearray(content)
    for what, at, new in changes:
        at %= max(1, len(data))
        if what == "set":
            data[at : at + len(new)] = new
        elif what == "flip" and data:
            data[at] ^= 1 << (new[0] % 8)
        elif what == "delete":
            del data[at : at + new[0]]
        elif what == "insert":
            data[at:at] = new
        elif what == "cut":
            del data[at:]
    return bytes(data)


def check_reader(read, path: Path) -> None:
    try:
        volume = read(path)
    except InputError as error:
        told = str(error)
    else:
        check_volume(volume)
        return
    assert str(path.parent) in told
    assert len(told) < 900


def check_volume(volume: Volume) -> None:
    assert volume.data.ndim in (3, 4)
    assert volume.data.size > 0
    assert np.isfinite(volume.data).all()
    assert np.isfinite(volume.affine).all()
    assert min(volume.spacing_mm) > 0


@pytest.mark.parametrize("name", ["nii", "nii.gz", "nrrd", "seg.nrrd", "mha", "png", "tif", "jpg", "bmp"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=edits)
def test_damaged_files(originals, tmp_path, name, changes):
    path = tmp_path / f"odd.{name}"
    content = damaged(originals[path.name], changes)
    path.write_bytes(gzip.compress(content, 1) if name == "nii.gz" else content)
    check_reader(read_image, path)
    check_reader(read_label, path)


# Where damage makes an element's length absurd, GDCM allocates that much (4 GB at most) before it notices.
# What is no segmentation any more must not reach GDCM: it keeps that memory after an error.
@pytest.mark.parametrize(("name", "read"), [("odd", read_image), ("seg", partial(read_label, formats=(DICOM_SEG,)))])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings().max_examples // 4)
@given(changes=edits)
def test_damaged_dicom(originals, tmp_path, name, read, changes):
    path = tmp_path / f"{name}.dcm"
    path.write_bytes(damaged(originals[path.name], changes))
    check_reader(read, path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings().max_examples // 4)
@given(changes=edits)
def test_damaged_structure_sets(scan, originals, tmp_path, changes):
    path = tmp_path / "rt.dcm"
    path.write_bytes(damaged(originals[path.name], changes))
    check_reader(partial(read_label, image=scan, formats=(RTSTRUCT,)), path)
