"""Pictures that ITK reads wrongly or not at all are refused for their true cause."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medfewshot.errors import InputError
from medfewshot.io import read_image

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


def test_a_picture_that_must_be_turned_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(InputError, match="turned"):
        read_image(picture(tmp_path / "a.jpg", "RGB", exif=exif))


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
