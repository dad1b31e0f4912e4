"""A format is one module and one ``Format``: a toy that the package does not know takes every way through the room."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from io_samples import OBLIQUE, SHAPE, ramp, write_nifti

from medfewshot.errors import InputError
from medfewshot.io import (
    FORMATS,
    Format,
    case_id,
    find_images,
    format_of,
    looks_like_label,
    output_suffix,
    read_image,
    read_label,
    volumes_in,
    write_array,
    write_label,
)
from medfewshot.io.formats.base import kept_header
from medfewshot.types import Volume


def read_toy(path: Path, dtype: type | None) -> Volume:
    """numpy's own archive with the arrays ``data`` and ``affine`` and a comment, which the writer gives back."""
    content = np.load(path)
    data = content["data"]
    return Volume(data.astype(dtype or data.dtype), content["affine"], str(content["comment"]))


def write_toy(path: Path, data: np.ndarray, like: Volume) -> None:
    channels = data if data.ndim > like.spatial_dims else data[None]
    np.savez(path, data=channels, affine=like.affine, comment=kept_header(like, str) or "new")


TOY = Format(
    name="toy", suffixes=(".toy.npz",), read=read_toy, results=".toy.npz", writes=(".toy.npz",), write=write_toy
)
ALL = (*FORMATS, TOY)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "a_0000.toy.npz"
    np.savez(path, data=ramp()[None], affine=OBLIQUE, comment="mine")
    return path


def comment_of(path: Path) -> str:
    return str(np.load(path)["comment"])


def test_a_toy_format_is_read_and_written(tmp_path: Path, scan: Path) -> None:
    volume = read_image(scan, formats=ALL)
    assert (volume.data.dtype, volume.path) == (np.float32, scan)
    assert np.array_equal(volume.data[0], ramp())
    result = tmp_path / f"out{output_suffix(volume, formats=ALL)}"
    write_label(result, ramp(), volume, formats=ALL)
    label = read_label(result, formats=ALL)
    assert label.data.dtype == np.int16
    assert np.array_equal(label.data[0], ramp())
    assert np.array_equal(label.affine, OBLIQUE)
    assert comment_of(result) == "mine"
    write_array(tmp_path / "p.toy.npz", np.zeros((2, *SHAPE)), Volume(volume.data, volume.affine), formats=ALL)
    assert read_image(tmp_path / "p.toy.npz", formats=ALL).data.shape == (2, *SHAPE)
    assert comment_of(tmp_path / "p.toy.npz") == "new"


def test_names_and_folders_know_the_toy(tmp_path: Path, scan: Path) -> None:
    write_nifti(tmp_path / "b.nii.gz")
    assert case_id(scan, formats=ALL) == "a"
    assert find_images(tmp_path, formats=ALL) == volumes_in(tmp_path, formats=ALL) == [scan, tmp_path / "b.nii.gz"]
    assert find_images(tmp_path) == [tmp_path / "b.nii.gz"]
    assert format_of(scan, formats=ALL) is TOY
    assert not looks_like_label(scan, formats=ALL)
    masks = Format(name="masks", suffixes=(".toy.npz",), read=read_toy, labels_only=True)
    assert looks_like_label(scan, formats=(masks,))


def test_the_checks_of_the_room_hold_for_the_toy(tmp_path: Path, scan: Path) -> None:
    with pytest.raises(InputError, match="npz is not known; give NIfTI"):
        read_image(scan)
    scan.write_bytes(b"PK nothing of the kind")
    with pytest.raises(InputError, match=r"a_0000\.toy\.npz: cannot be read"):
        read_image(scan, formats=ALL)
    np.savez(scan, data=ramp()[None] / 7, affine=OBLIQUE, comment="")
    with pytest.raises(InputError, match="no whole numbers"):
        read_label(scan, formats=ALL)
    np.savez(scan, data=ramp()[None], affine=np.ones((4, 4)), comment="")
    with pytest.raises(InputError, match="sheared"):
        read_image(scan, formats=ALL)


def test_a_reader_of_labels_replaces_the_reader_of_images(scan: Path) -> None:
    def refuse(path: Path) -> Volume:
        raise InputError(f"{path}: holds scans only", "use another format")

    scans = Format(name="scans", suffixes=(".toy.npz",), read=read_toy, read_label=refuse)
    assert read_image(scan, formats=(scans,)).data.shape == (1, *SHAPE)
    with pytest.raises(InputError, match="scans only"):
        read_label(scan, formats=(scans,))


def test_content_counts_only_if_the_name_says_nothing(tmp_path: Path, scan: Path) -> None:
    bare = scan.rename(tmp_path / "bare")
    by_content = Format(name="by content", suffixes=(), read=read_toy, recognises=lambda path: path.stat().st_size > 0)
    assert np.array_equal(read_image(bare, formats=(*FORMATS, by_content)).data[0], ramp())
    nifti = write_nifti(tmp_path / "b.nii")
    assert read_image(nifti, formats=(*FORMATS, by_content)).warnings == read_image(nifti).warnings


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (lambda: TOY, {"real_numbers": True, "channels": True}, ".toy.npz"),
        (lambda: Format(name="x", suffixes=(".x",), read=read_toy, results=".x"), {}, ".nii.gz"),  # is never written
        (lambda: next(one for one in FORMATS if one.name == "TIFF"), {"real_numbers": True}, ".tif"),
        (lambda: next(one for one in FORMATS if one.name == "TIFF"), {"channels": True}, ".nii.gz"),
        (lambda: next(one for one in FORMATS if one.name == "PNG"), {"real_numbers": True}, ".nii.gz"),
    ],
)
def test_what_a_format_cannot_hold_goes_into_the_first(
    tmp_path: Path, make: Callable[[], Format], options: dict[str, bool], expected: str
) -> None:
    source = make()
    own = Format(name=source.name, suffixes=(".in",), read=read_toy, results=source.results)
    np.savez(tmp_path / "a", data=ramp()[None], affine=OBLIQUE, comment="")
    volume = read_image((tmp_path / "a.npz").rename(tmp_path / "a.in"), formats=(own,))
    assert output_suffix(volume, **options, formats=(*FORMATS, source)) == expected


def test_every_format_is_consistent() -> None:
    suffixes = [suffix for one in FORMATS for suffix in one.suffixes]
    assert len(suffixes) == len(set(suffixes))
    for one in FORMATS:
        assert set(one.writes) <= set(one.suffixes)
        assert bool(one.writes) == (one.write is not None)
        assert format_of(one.results).write is not None
        assert pickle.loads(pickle.dumps(one)) == one
