"""Films as pictures and videos: pages of a TIFF, animated GIF, MP4 and AVI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfewshot.errors import InputError
from medfewshot.io import open_film, output_suffix, read_image, read_label

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
