"""Pictures that ITK reads wrongly or not at all are refused for their true cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.Image import Transpose

from medfewshot.errors import InputError
from medfewshot.io import open_film, read_image, read_label, write_label

GREY = np.random.default_rng(0).integers(0, 255, (12, 9), dtype=np.uint8)


def picture(path, mode, **options):
    one = Image.fromarray(GREY)
    Image.merge(mode, [one] * len(Image.new(mode, (1, 1)).getbands())).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "cause"), [("a.png", "LA", "alpha"), ("a.tif", "CMYK", "CMYK"), ("a.jpg", "CMYK", "CMYK")]
)
def test_the_kind_of_picture_is_named(tmp_path, name, mode, cause):
    with pytest.raises(InputError, match=cause):
        read_image(picture(tmp_path / name, mode))


STORED = {
    1: lambda one: one, 2: ImageOps.mirror, 3: lambda one: one.rotate(180), 4: ImageOps.flip,
    5: lambda one: one.transpose(Transpose.TRANSPOSE), 6: lambda one: one.rotate(90, expand=True),
    7: lambda one: one.transpose(Transpose.TRANSVERSE), 8: lambda one: one.rotate(-90, expand=True),
}  # fmt: skip
"""EXIF orientation -> how an upright picture is stored."""


def save_turned(path: Path, upright: list[np.ndarray], orientation: int, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    first, *others = [STORED[orientation](Image.fromarray(one)) for one in upright]
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(path, exif=exif, **more, **options)
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.jpg", {"quality": 100})],
)
def test_scans_and_labels_are_turned_upright(tmp_path, name, options, orientation):
    colours = np.stack([GREY // 3, GREY, GREY // 2], -1)
    for upright in (GREY, colours):
        path = save_turned(tmp_path / name, [upright], orientation, **options)
        volume = read_image(path)
        expected = np.asarray(upright.reshape(*GREY.shape, -1).T, np.float32)
        near = 60 if name == "a.jpg" and upright is colours else 3 * (name == "a.jpg")  # JPEG blurs
        assert volume.data.shape == expected.shape
        assert np.abs(volume.data - expected).max() <= near
        assert sum("upright" in text for text in volume.warnings) == (orientation > 1)
    if name != "a.jpg":
        np.testing.assert_array_equal(read_label(save_turned(path, [GREY // 64], orientation)).data[0], GREY.T // 64)
        write_label(tmp_path / "result.png", GREY.T // 64, volume)  # upright, without EXIF data
        with Image.open(tmp_path / "result.png") as result:
            np.testing.assert_array_equal(np.asarray(result), GREY // 64)
            assert not result.getexif()


def test_16_bit_values_and_pages_are_turned_too(tmp_path):
    for name in ("a.png", "a.tif"):
        path = save_turned(tmp_path / name, [GREY.astype(np.uint16) * 200], 6)
        np.testing.assert_array_equal(read_image(path).data[0], GREY.T.astype(np.uint16) * 200)
    film = open_film(save_turned(tmp_path / "film.tif", [GREY, GREY // 2, GREY // 3], 8))
    np.testing.assert_array_equal(film.frame(2).data[0], GREY.T // 3)


def test_an_upright_picture_with_equal_colours_is_read_as_grey(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1
    volume = read_image(picture(tmp_path / "a.png", "RGB", exif=exif))
    np.testing.assert_array_equal(volume.data[0], GREY.T)
    assert "three equal colour channels" in volume.warnings[0]


def test_16_bit_grey_keeps_its_values(tmp_path):
    values = GREY.astype(np.uint16) * 200
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data[0], values.T)
