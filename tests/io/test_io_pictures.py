"""Pictures of every kind and orientation; films as pages of a TIFF, animated GIF, MP4 and AVI."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.Image import Transpose

from medfewshot.errors import InputError
from medfewshot.io import open_film, output_suffix, read_image, read_label, write_label

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


def with_palette(path: Path, labels: np.ndarray, palette: list[int]) -> Path:
    picture = Image.fromarray(labels)
    picture.putpalette(palette)
    picture.save(path)
    return path


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
"""From the development kit of PASCAL VOC: background, aeroplane, bicycle, bird, boat."""


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_indices_of_the_palette_of_voc_are_label_values(tmp_path, name):
    label = read_label(with_palette(tmp_path / name, GREY // 64 + 1, VOC))
    np.testing.assert_array_equal(label.data[0], GREY.T // 64 + 1)
    assert any("indices of its palette" in text for text in label.warnings)
    colour = read_image(tmp_path / name).data[:, 0, 0]
    np.testing.assert_array_equal(colour, VOC[3 * (GREY[0, 0] // 64 + 1) :][:3])


def test_a_label_with_another_palette_is_refused_unless_its_colours_are_grey(tmp_path):
    with pytest.raises(InputError, match="is a colour picture"):
        read_label(with_palette(tmp_path / "a.png", GREY // 64, VOC[3:]))
    for name in ("b.png", "b.tif"):
        label = read_label(with_palette(tmp_path / name, GREY // 128, [0, 0, 0, 255, 255, 255]))
        np.testing.assert_array_equal(np.unique(label.data), [0, 255])


def test_16_bit_values_and_pages_are_turned_too(tmp_path):
    for name in ("a.png", "a.tif"):
        path = save_turned(tmp_path / name, [GREY.astype(np.uint16) * 200], 6)
        np.testing.assert_array_equal(read_image(path).data[0], GREY.T.astype(np.uint16) * 200)
    film = open_film(save_turned(tmp_path / "film.tif", [GREY, GREY // 2, GREY // 3], 8))
    np.testing.assert_array_equal(film.frame(2).data[0], GREY.T // 3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_page_has_the_contrast_of_a_film_if_zero_is_white(tmp_path, kind):
    pages = [Image.fromarray(GREY.astype(kind)), Image.fromarray(GREY.astype(kind) // 2)]
    pages[0].save(tmp_path / "page.tif", tiffinfo={262: 0})
    pages[0].save(tmp_path / "film.tif", tiffinfo={262: 0}, save_all=True, append_images=pages[1:])
    for data in (read_image(tmp_path / "page.tif").data, open_film(tmp_path / "film.tif").frame(0).data):
        np.testing.assert_array_equal(data[0], GREY.T)


@pytest.mark.parametrize("inverted", [0, 1])
@pytest.mark.parametrize("orientation", [1, 8])
def test_a_mask_of_two_colours_has_the_same_values_however_it_is_stored(tmp_path, inverted, orientation):
    mask = GREY > 200
    STORED[orientation](Image.fromarray(mask)).save(
        tmp_path / "a.tif", tiffinfo={262: inverted, 274: orientation}, compression="group4"
    )
    np.testing.assert_array_equal(read_label(tmp_path / "a.tif").data[0], mask.T * 255)


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


def write_tiff(path: Path, blocks: list[np.ndarray], shape: tuple[int, int], tags: dict[int, tuple[int, ...]]) -> Path:
    """Write a TIFF of ``shape`` (rows, columns) by hand; ``tags`` say how the blocks lie in it."""
    contents = [block.tobytes() for block in blocks]
    where, sizes = (324, 325) if 322 in tags else (273, 279)
    starts = np.cumsum([8, *map(len, contents)])
    tags = {257: shape[:1], 256: shape[1:], 259: (1,), 262: (1,), 278: shape[:1], **tags, where: (*starts[:-1],)}
    tags[sizes] = (*map(len, contents),)
    directory, values = struct.pack("<H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}L", *numbers)
        at = struct.pack("<L", starts[-1] + 6 + 12 * len(tags) + len(values)) if len(numbers) > 1 else packed
        directory, values = directory + struct.pack("<HHL", tag, 4, len(numbers)) + at, values + packed
    path.write_bytes(b"II*\0" + struct.pack("<L", starts[-1]) + b"".join([*contents, directory, bytes(4), values]))
    return path


def test_tiles_keep_values_of_16_bits(tmp_path):
    values = np.random.default_rng(1).integers(0, 4096, (32, 48)).astype(np.uint16)
    tiles = [values[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)]
    path = write_tiff(tmp_path / "a.tif", tiles, values.shape, {258: (16,), 322: (16,), 323: (16,)})
    np.testing.assert_array_equal(read_image(path).data[0], values.T)
    labels = [np.full_like(tile, 300 * number) for number, tile in enumerate(tiles)]
    path = write_tiff(tmp_path / "b.tif", labels, values.shape, {258: (16,), 322: (16,), 323: (16,)})
    assert set(np.unique(read_label(path).data)) == {0, 300, 600, 900, 1200, 1500}


def test_colours_in_planes_are_read_or_refused(tmp_path):
    colours = [GREY, GREY // 2, GREY // 3]
    path = write_tiff(tmp_path / "a.tif", colours, GREY.shape, {258: (8, 8, 8), 262: (2,), 277: (3,), 284: (2,)})
    np.testing.assert_array_equal(read_image(path).data, np.stack(colours).swapaxes(1, 2))
    colours = [colour.astype(np.uint16) * 200 for colour in colours]
    path = write_tiff(tmp_path / "b.tif", colours, GREY.shape, {258: (16, 16, 16), 262: (2,), 277: (3,), 284: (2,)})
    with pytest.raises(InputError, match=r"b\.tif: its 16-bit colours are turned, in tiles or in planes"):
        read_image(path)


def test_channels_that_are_no_colours_are_refused(tmp_path):
    values = np.stack([GREY, GREY], -1).astype(np.uint16)
    path = write_tiff(tmp_path / "a.tif", [values], GREY.shape, {258: (16, 16), 277: (2,)})
    with pytest.raises(InputError, match=r"a\.tif: is a TIFF of unknown kind; save one grey channel"):
        read_image(path)


PAGES = [np.full((6, 8), 40 * number, np.uint8) + np.arange(8, dtype=np.uint8) for number in range(4)]
"""Rows, columns."""


def write_pages(path: Path, pages: list[np.ndarray], **more: object) -> Path:
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others, **more)
    return path


def write_video(path: Path, codec: str, *, times: tuple[int, ...] = (0, 1, 2, 3), colour: bool = False) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number, time in enumerate(times):
            rgb = np.full((16, 32, 3), 50 * number, np.uint8)
            rgb[:, ::4, 0] += 90 * colour
            rgb += np.arange(32, dtype=np.uint8)[:, None]
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_frames(tmp_path, dtype):
    pages = [page.astype(dtype) * (1 if dtype == np.uint8 else 200) for page in PAGES]
    film = open_film(write_pages(tmp_path / "film.tif", pages))
    assert film.count == 4
    assert np.array_equal(film.frame(3).data[0], pages[3].T)
    assert not film.first.has_spacing
    assert output_suffix(film.first, channels=True) == ".nii.gz"


@pytest.mark.parametrize(
    ("words", "doubted"),
    [
        ("ImageJ=1.54f\nimages=4\nchannels=2\nframes=2\n", True), ("ImageJ=1.54f\nimages=4\nslices=4\n", True),
        ('<Pixels SizeC="1" SizeT="1" SizeX="8" SizeY="6" SizeZ="4"/>', True),
        ("ImageJ=1.54f\nimages=4\nframes=4\n", False), ('<Pixels SizeC="1" SizeT="4" SizeZ="1"/>', False),
    ],
)  # fmt: skip
def test_pages_that_their_header_calls_channels_or_slices_are_doubted(tmp_path, words, doubted):
    film = open_film(write_pages(tmp_path / "film.tif", PAGES, description=words))
    assert (len(film.first.warnings) == 1) == doubted
    assert film.count == 4


def test_a_gif_has_times(tmp_path):
    pytest.importorskip("av")
    film = open_film(write_pages(tmp_path / "film.gif", PAGES, duration=[40, 80, 40, 40], loop=0))
    assert np.array_equal(film.frame(1).data[0], PAGES[1].T)
    assert film.times_s == pytest.approx((0, 0.04, 0.12, 0.16))
    one = write_pages(tmp_path / "one.gif", PAGES[:1])
    assert open_film(one) is None
    assert np.array_equal(read_image(one).data[0], PAGES[0].T)


def test_pages_of_another_size_are_refused(tmp_path):
    film = open_film(write_pages(tmp_path / "film.tif", [PAGES[0], PAGES[1][:4]]))
    with pytest.raises(InputError, match=r"pages differ in size, 8x6 and 8x4 \(page 1\)"):
        list(film.frames())


def test_colour_pages_are_refused(tmp_path):
    colours = [np.stack([page, page, page + 9], -1) for page in PAGES]
    with pytest.raises(InputError, match="is a colour picture"):
        open_film(write_pages(tmp_path / "film.tif", colours))


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "mpeg4"), ("film.avi", "mjpeg"), ("film.mov", "mpeg4")])
def test_frames_of_a_video_are_read_as_grey(tmp_path, name, codec):
    film = open_film(write_video(tmp_path / name, codec))
    assert film.count == 4
    assert film.first.spatial_shape == (32, 16)
    assert [float(volume.data.mean()) for volume in film.frames()] == pytest.approx([15.5, 65.5, 115.5, 165.5], abs=4)
    assert film.times_s == pytest.approx((0, 0.04, 0.08, 0.12))
    assert film.first.warnings == ()


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    film = open_film(write_video(tmp_path / "film.mp4", "mpeg4", times=(0, 1, 5, 6)))
    assert film.times_s == pytest.approx((0, 0.04, 0.2, 0.24))


def test_a_colour_video_is_a_warning(tmp_path):
    film = open_film(write_video(tmp_path / "film.mp4", "mpeg4", colour=True))
    assert film.first.warnings == ("is a colour video: read as grey, by its brightness",)


def test_a_video_is_no_label(tmp_path):
    with pytest.raises(InputError, match="blurs label values"):
        read_label(write_video(tmp_path / "film.mp4", "mpeg4"))
