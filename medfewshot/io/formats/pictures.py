"""2D pictures, through SimpleITK: PNG, JPEG, TIFF and BMP. They know no millimetres."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.base import DType, Format, Refuse
from medfewshot.io.formats.film import Film, TimeAxis
from medfewshot.io.formats.itk import array_of, image_of, read_itk, write_itk
from medfewshot.io.formats.signature import other_kind
from medfewshot.types import Volume

_PAGES = ("1", "L", "P", "I", "F", "I;16", "I;16B", "RGB", "RGBA")
"""Kinds of pages that are read; of colours, those that are grey."""
_ORIENTATION = 0x0112
"""EXIF tag: how the stored picture must be turned to be upright."""
_PHOTOMETRIC, _BITS, _PLANES, _TILES = 0x0106, 0x0102, 0x011C, 0x0142
"""TIFF tags: 0 if 0 is white, 3 with a palette; bits of each channel; 2 if channels lie in planes; width of tiles."""
_DESCRIPTION, _STATED = 0x010E, re.compile(r'^(channels|slices)=(\d+)|\bSize(C|Z)="(\d+)"', re.MULTILINE)
"""TIFF tag in which ImageJ and OME state what the pages are."""
_TURNS = {
    2: (False, -1, 1), 3: (False, -1, -1), 4: (False, 1, -1),
    5: (True, 1, 1), 6: (True, -1, 1), 7: (True, -1, -1), 8: (True, 1, -1),
}  # fmt: skip
"""Value of the tag -> whether the stored axes are swapped, and then the direction of x and of y."""
_VOC = np.sum([(np.arange(256)[:, None] >> (3 * bit + np.arange(3)) & 1) << (7 - bit) for bit in range(8)], axis=0)
"""Colours of the palette that PASCAL VOC, Labelme and others give to label values 0 to 255, ``(256, 3)``."""


def read(path: Path, dtype: DType) -> Volume:
    """Read a grey picture as ``(1, X, Y)``, one in colours as ``(3, X, Y)``: red, green and blue.

    The affine counts pixels: the file states the resolution of a printer. A label map (``dtype`` None) has no colours,
    but may have VOC's palette, whose indices are the label values.
    A picture is turned upright if its EXIF data say so, as viewers do.
    """
    _check_whole(path)
    turn, for_pillow = _check_kind(path)
    indices = _label_indices(path) if dtype is None and not turn else None
    if for_pillow and indices is None:
        return picture_volume(*next(_pages(path, dtype, [0], colours_allowed=dtype is not None)))
    image = read_itk(path)
    if image.GetDimension() != 2:
        pages = image.GetSize()[-1]
        raise InputError(f"{path}: has {pages} pages", "convert the stack to NIfTI or NRRD with its spacing")
    data = indices
    remarks: tuple[str, ...] = ("label values are the indices of its palette",)
    if data is None:
        data, remarks = _grey(path, array_of(image, dtype), colours_allowed=dtype is not None)
    if turn:
        swapped, x, y = _TURNS[turn]
        data = np.ascontiguousarray((data.swapaxes(1, 2) if swapped else data)[:, ::x, ::y])
        remarks += (_turned(turn),)
    return picture_volume(data, remarks)


def _label_indices(path: Path) -> np.ndarray | None:
    """Return the indices ``(1, X, Y)`` of a picture whose palette is VOC's, as far as it is used; otherwise None."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode != "P":
            return None
        data, colours = np.array(picture).T[None], np.reshape(picture.getpalette("RGB") or [0, 0, 0], (-1, 3))
    used = np.unique(data)
    return data if np.array_equal(colours[used], _VOC[used]) else None


def picture_volume(data: np.ndarray, remarks: tuple[str, ...], time: TimeAxis | None = None) -> Volume:
    """Return a volume that counts pixels, with a time axis if it is a frame."""
    return Volume(data, np.diag([-1.0, -1.0, 1.0, 1.0]), time, has_spacing=False, warnings=remarks)


def _turned(turn: int) -> str:
    return f"turned upright, as its EXIF data say (orientation {turn}): results lie on the upright picture"


def film(path: Path, dtype: DType) -> Film | None:
    """Open the pages of a TIFF as a film; None if there is one."""
    from PIL import Image, TiffImagePlugin

    try:
        with Image.open(path) as picture:
            count = picture.n_frames if isinstance(picture, TiffImagePlugin.TiffImageFile) else 1
            stated = _STATED.findall(str(picture.getexif().get(_DESCRIPTION, "")))
    except OSError:
        return None  # ITK says what is wrong with it
    if count < 2:
        return None
    _check_kind(path)
    grey, remarks = next(_pages(path, dtype, [0]))
    if any(int(number or size) > 1 for _, number, _, size in stated):
        remarks += ("its header calls the pages channels or slices; here they are frames, or channels if as many fit",)
    first = picture_volume(grey, remarks, TimeAxis(1.0))
    return Film(first, count, lambda numbers: (page for page, _ in _pages(path, dtype, numbers)))


def _pages(
    path: Path, dtype: DType, numbers: Sequence[int], *, colours_allowed: bool = False
) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
    """Yield upright pages ``(C, X, Y)`` and remarks about them."""
    from PIL import Image

    with path.open("rb") as file, Image.open(file) as picture:  # given a path, Pillow 13 turns some pages wrongly
        size = picture.size
        for number in numbers:
            picture.seek(number)
            if picture.size != size:
                raise InputError(
                    f"{path}: its pages differ in size, {size[0]}x{size[1]} and {picture.size[0]}x{picture.size[1]} "
                    f"(page {number})",
                    "save pages of one size",
                )
            if picture.mode not in _PAGES:
                raise InputError(f"{path}: has pages of kind {picture.mode}", "convert it to one grey channel")
            turn = picture.getexif().get(_ORIENTATION, 0)
            kind = {"P": "RGB", "RGBA": "RGB", "1": "L"}.get(picture.mode)  # two colours are 0 and 255, as ITK has it
            data = np.asarray(picture.convert(kind) if kind else picture)
            data = (data[None] if data.ndim == 2 else np.moveaxis(data, -1, 0)).transpose(0, 2, 1)
            data, remarks = _grey(path, np.array(data, dtype=dtype), colours_allowed=colours_allowed)
            yield data, (*remarks, _turned(turn)) if turn in _TURNS else remarks


def write(path: Path, data: np.ndarray, like: Volume) -> None:
    """Write ``data (X, Y)``."""
    write_itk(path, image_of(data), compress=False)


def _check_whole(path: Path) -> None:
    """ITK fills the missing rest of a JPEG or BMP with grey, without a message."""
    content, suffix = path.read_bytes(), path.suffix.lower()
    no_end = suffix in JPEG.suffixes and b"\xff\xd9" not in content[-(1 << 16) :]
    if no_end or (suffix in BMP.suffixes and len(content) < int.from_bytes(content[2:6], "little")):
        raise InputError(f"{path}: is cut short", "copy or export it again")


def _check_kind(path: Path) -> tuple[int, bool]:
    """Refuse what ITK reads wrongly: grey with an alpha channel, printers' colours, and TIFF that Pillow does not know.

    Returns:
        The EXIF orientation if the picture must be turned, otherwise 0. And whether it is a TIFF for Pillow: ITK turns
        some of them, inverts those in which 0 is white, stretches palettes, and reads tiles and planes with 8 bits.
    """
    from PIL import Image, TiffImagePlugin

    turn, for_pillow = 0, False
    with contextlib.suppress(OSError), warnings.catch_warnings():  # ITK says what is wrong with other files
        warnings.simplefilter("ignore")
        try:
            picture = Image.open(path)
        except Image.UnidentifiedImageError:
            with path.open("rb") as stream:
                head = stream.read(8)
            directory = int.from_bytes(head[4:], "little" if head[:2] == b"II" else "big")
            is_whole = directory < path.stat().st_size
            if path.suffix.lower() in TIFF.suffixes and is_whole and other_kind(path) is None:
                raise InputError(f"{path}: is a TIFF of unknown kind", "save one grey channel of 16 bits") from None
            raise
        with picture:
            mode, tags = picture.mode, picture.getexif()
            turn, bits = tags.get(_ORIENTATION, 0), np.ravel(tags.get(_BITS, 8))
            is_apart = tags.get(_PLANES) == 2 or _TILES in tags
            is_odd = turn in _TURNS or tags.get(_PHOTOMETRIC) in (0, 3) or is_apart or bits[0] == 12
            for_pillow = is_odd and isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.n_frames == 1
        if mode in ("LA", "La", "PA"):
            raise InputError(f"{path}: is grey with an alpha channel", "save it without transparency")
        if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            raise InputError(f"{path}: is a picture in {mode} colours", "convert it to RGB or one grey channel")
        if for_pillow and len(bits) > 1 and bits[0] > 8:  # Pillow reads them with 8
            raise InputError(f"{path}: its {bits[0]}-bit colours are turned, in tiles or in planes", "save it plainly")
    return turn if turn in _TURNS else 0, for_pillow


def _grey(path: Path, data: np.ndarray, *, colours_allowed: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert ``(C, X, Y)``, C = 1 grey, 2 grey + alpha, 3 RGB or 4 RGBA, to ``(1, X, Y)`` and warnings.

    If ``colours_allowed``, colours that differ stay: ``(3, X, Y)``.
    """
    if len(data) == 1:
        return data, ()
    has_alpha = len(data) in (2, 4)
    colours = data[:-1] if has_alpha else data
    if any(not np.array_equal(colours[0], colour) for colour in colours[1:]):
        if colours_allowed:
            return np.ascontiguousarray(colours), ("alpha channel ignored",) if has_alpha else ()
        raise InputError(
            f"{path}: is a colour picture",
            "convert it to one grey channel (a label map: one channel with the label values)",
        )
    ignored = "alpha channel ignored" if has_alpha else "three equal colour channels"
    return np.ascontiguousarray(colours[:1]), (f"read as grey: {ignored}",)


PNG = Format(
    name="PNG",
    suffixes=(".png",),
    read=read,
    results=".png",
    writes=(".png",),
    write=write,
    only_2d=True,
    dtypes=(np.uint8, np.uint16),
)
JPEG = Format(
    name="JPEG",
    suffixes=(".jpg", ".jpeg"),
    read=read,
    read_label=Refuse("JPEG blurs label values", "save the label as PNG, TIFF or NIfTI"),
    results=".png",
    only_2d=True,
)
TIFF = replace(
    PNG,
    name="TIFF",
    suffixes=(".tif", ".tiff"),
    film=film,
    results=".tif",
    writes=(".tif", ".tiff"),
    dtypes=(np.uint8, np.uint16, np.float32),
)
BMP = Format(name="BMP", suffixes=(".bmp",), read=read, results=".png", only_2d=True)
