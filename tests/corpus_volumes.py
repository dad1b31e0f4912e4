"""Volumes to segment as hospitals have them: damaged, odd, or merely badly named. One function builds each kind.

A function takes an empty folder and returns the path to hand over. ``REFUSED`` names what the refusal must say;
``ACCEPTED`` are kinds that must be segmented.
"""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toys

Build = Callable[[Path], Path]
REFUSED: dict[str, tuple[Build, str]] = {}
ACCEPTED: dict[str, Build] = {}

# Byte offsets in a NIfTI-1 header (nifti1.h).
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, QUATERNION, MAGIC = 40, 70, 72, 76, 108, 112, 256, 344


def told_in(kinds: dict[str, tuple[Any, str]]) -> Callable[[str], Callable[[Any], Any]]:
    """Return the decorator that enters a function in ``kinds``, with what a message must say."""

    def told_by(told: str) -> Callable[[Any], Any]:
        def register(build: Any) -> Any:
            kinds[build.__name__] = (build, told)
            return build

        return register

    return told_by


refused = told_in(REFUSED)


def accepted(build: Build) -> Build:
    ACCEPTED[build.__name__] = build
    return build


def posix(build: Build) -> Build:
    """Kinds with links, pipes or names that Windows does not allow."""

    @wraps(build)
    def checked(folder: Path) -> Path:
        if os.name == "nt":
            pytest.skip("Windows does not allow such files")
        return build(folder)

    return checked


def scan() -> np.ndarray:
    return toys.make_scan(30)[0]


def nifti(folder: Path, data: np.ndarray | None = None, name: str = "odd.nii.gz", affine=toys.AFFINE) -> Path:
    return toys.save_nifti(folder / name, scan() if data is None else data, affine)


def patched(folder: Path, offset: int, code: str, *values: float, name: str = "odd.nii") -> Path:
    """A NIfTI file with some bytes of its header overwritten."""
    path = nifti(folder, name=name)
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{code}", content, offset, *values)
    path.write_bytes(content)
    return path


def of_bytes(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


# --- damaged files ---------------------------------------------------------------------------------------------------


@refused("0 bytes")
def zero_bytes(folder):
    return of_bytes(folder, "odd.nii.gz", b"")


@refused("cannot be read")
def truncated_gzip(folder):
    content = nifti(folder).read_bytes()
    return of_bytes(folder, "odd.nii.gz", content[: len(content) // 2])


@refused("cannot be read")
def truncated_by_one_byte(folder):
    return of_bytes(folder, "odd.nii", nifti(folder, name="odd.nii").read_bytes()[:-1])


@refused("cannot be read")
def gzip_checksum_wrong(folder):
    content = bytearray(nifti(folder).read_bytes())
    content[-6] ^= 255
    return of_bytes(folder, "odd.nii.gz", bytes(content))


@refused("cannot be read")
def gzip_of_text(folder):
    return of_bytes(folder, "odd.nii.gz", gzip.compress(b"dear colleague " * 99))


@refused("cannot be read")
def text_as_nifti(folder):
    return of_bytes(folder, "odd.nii", b"dear colleague " * 99)


@refused("cannot be read")
def text_as_nrrd(folder):
    return of_bytes(folder, "odd.nrrd", b"dear colleague " * 99)


@refused("cannot be read")
def text_as_metaimage(folder):
    return of_bytes(folder, "odd.mha", b"dear colleague " * 99)


@refused("cannot be read")
def text_as_png(folder):
    return of_bytes(folder, "odd.png", b"dear colleague " * 99)


@refused("odd.dcm")
def text_as_dicom(folder):
    return of_bytes(folder, "odd.dcm", b"dear colleague " * 99)


@refused("odd.pdf")
def another_suffix(folder):
    return of_bytes(folder, "odd.pdf", b"%PDF-1.7 " * 99)


@refused("cannot be read")
def wrong_magic(folder):
    return patched(folder, MAGIC, "4s", b"XXXX")


@refused("a ZIP archive; unpack it")
def zip_archive_named_nifti(folder):
    return of_bytes(folder, "odd.nii.gz", b"PK\x03\x04" + bytes(500))


@refused("goes on")
def gzip_bomb_behind_the_voxels(folder):
    content = gzip.decompress(nifti(folder).read_bytes())
    with gzip.open(folder / "odd.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(content)
        for _ in range(40):
            stream.write(bytes(1 << 20))
    return folder / "odd.nii.gz"


@refused("voxels by its header")
def absurd_dimensions(folder):
    return patched(folder, DIM, "8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)


@refused("voxels by its header")
def absurd_dimensions_in_gzip(folder):
    content = bytearray(gzip.decompress(nifti(folder).read_bytes()))
    struct.pack_into("<8h", content, DIM, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    return of_bytes(folder, "odd.nii.gz", gzip.compress(bytes(content)))


@refused("voxels by its header")
def absurd_dimensions_in_metaimage(folder):
    path = toys.save_itk(folder / "odd.mha", scan())
    sizes = path.read_bytes().replace(b"DimSize = 16 15 14", b"DimSize = 99999 99999 99999")
    return of_bytes(folder, "odd.mha", sizes)


@refused("voxels by its header")
def absurd_dimensions_in_nrrd(folder):
    path = toys.save_itk(folder / "odd.nrrd", scan())
    return of_bytes(folder, "odd.nrrd", path.read_bytes().replace(b"sizes: 16 15 14", b"sizes: 99999 99999 99999"))


@refused("odd.nii")
def negative_dimensions(folder):
    return patched(folder, DIM, "8h", 3, -16, 15, 14, 1, 1, 1, 1)


@refused("odd.nii")
def no_dimensions(folder):
    return patched(folder, DIM, "8h", 0, 16, 15, 14, 1, 1, 1, 1)


@refused("odd.nii")
def ninety_nine_dimensions(folder):
    return patched(folder, DIM, "8h", 99, 16, 15, 14, 1, 1, 1, 1)


@refused("odd.nii")
def unknown_data_type(folder):
    return patched(folder, DATATYPE, "h", 9999)


@refused("cannot be read")
def voxels_beyond_the_end(folder):
    return patched(folder, VOX_OFFSET, "f", 1e9)


@refused("NaN or infinite")
def infinite_slope(folder):
    return patched(folder, SLOPE, "2f", 1e38, 1e38)


@refused("its voxels are in odd.raw, which is missing")
def header_without_its_data_file(folder):
    toys.save_itk(folder / "odd.mhd", scan())
    (folder / "odd.raw").unlink(missing_ok=True)
    (folder / "odd.zraw").unlink(missing_ok=True)
    return folder / "odd.mhd"


# --- values and shapes that cannot be segmented ----------------------------------------------------------------------


@refused("is a label map by its values (0, 1)")
def booleans(folder):
    return nifti(folder, (scan() > 200).astype(np.uint8))


@refused("is a label map by its values (0, 205, 420)")
def a_label_map(folder):
    return nifti(folder, toys.make_scan(30)[1])


@refused("NaN or infinite")
def not_a_number(folder):
    data = scan().astype(np.float32)
    data[3, 4, 5] = np.nan
    return nifti(folder, data)


@refused("NaN or infinite")
def infinite(folder):
    data = scan().astype(np.float32)
    data[3, 4, 5] = -np.inf
    return nifti(folder, data)


@refused("NaN or infinite")
def beyond_float32(folder):
    return nifti(folder, scan().astype(np.float64) * 1e300)


@refused("several channels in every frame")
def a_film_of_vectors(folder):
    pixels = np.zeros((2, 14, 15, 16, 2), np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(folder / "odd.nrrd"))
    return folder / "odd.nrrd"


@refused("2 or 3 axes")
def one_dimension(folder):
    return nifti(folder, np.arange(100, dtype=np.int16))


@refused("no voxels")
def no_voxels(folder):
    return nifti(folder, np.zeros((3, 0, 4), np.int16))


@refused("2D but the support is 3D")
def a_plane_for_a_volume(folder):
    return nifti(folder, scan()[:, :, 7])


@refused("2D but the support is 3D")
def a_photograph(folder):
    return toys.save_itk(folder / "odd.png", scan()[:, :, 7].astype(np.uint8))


@refused("colour")
def colour_nifti(folder):
    colours = np.zeros(toys.SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, toys.AFFINE), folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@refused("is 2D but the support is 3D")
def colour_png(folder):
    pixels = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(8, 9, 3)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(folder / "odd.png"))
    return folder / "odd.png"


@refused("complex")
def complex_numbers(folder):
    nib.save(nib.Nifti1Image(scan().astype(np.complex64), toys.AFFINE), folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@refused("channel")
def vectors(folder):
    field = np.stack([scan()] * 3, -1).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(field, isVector=True), str(folder / "odd.nrrd"))
    return folder / "odd.nrrd"


# --- grids that cannot be trusted ------------------------------------------------------------------------------------


def with_sform(folder: Path, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(scan(), np.eye(4))
    image.header.set_sform(affine, 1)
    image.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(scan(), None, image.header), folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@refused("sheared")
def sheared(folder):
    affine = toys.AFFINE.copy()
    affine[0, 0] = 0.3
    return with_sform(folder, affine)


@refused("zero is no spacing")
def zero_affine(folder):
    return with_sform(folder, np.diag([0.0, 0, 0, 1]))


@refused("zero is no spacing")
def flattened_affine(folder):
    return with_sform(folder, np.diag([1.0, 1, 0, 1]))


@refused("NaN or infinite")
def affine_of_nan(folder):
    affine = toys.AFFINE.copy()
    affine[0, 3] = np.nan
    return with_sform(folder, affine)


@refused("spacing")
def metres_taken_for_millimetres(folder):
    return with_sform(folder, np.diag([1250.0, 1500, 2000, 1]))


# --- odd paths -------------------------------------------------------------------------------------------------------


@refused("does not exist")
def missing(folder):
    return folder / "odd.nii.gz"


@refused("odd.nii.gz")
def folder_named_like_a_file(folder):
    (folder / "odd.nii.gz").mkdir()
    return folder / "odd.nii.gz"


@refused("odd")
def empty_folder(folder):
    (folder / "odd").mkdir()
    return folder / "odd"


@refused("odd.nii.gz")
@posix
def link_to_itself(folder):
    (folder / "odd.nii.gz").symlink_to(folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@refused("odd.nii.gz")
@posix
def link_to_nothing(folder):
    (folder / "odd.nii.gz").symlink_to(folder / "gone.nii.gz")
    return folder / "odd.nii.gz"


@refused("odd.nii.gz")
@posix
def named_pipe(folder):
    os.mkfifo(folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@refused("name")
def name_of_a_suffix_alone(folder):
    return nifti(folder, name=".nii.gz")


@refused("both would be written as")
def the_same_name_twice(folder):
    nifti(folder, name="odd.nii.gz")
    toys.save_itk(folder / "odd.mha", scan())
    return folder


@refused("odd.nii.gz")
def longer_than_a_path_may_be(folder):
    return folder / ("a" * 300) / "odd.nii.gz"


# --- other formats, and names that hide them --------------------------------------------------------------------------


def renamed(folder: Path, written: str, name: str) -> Path:
    """A scan in the format of one name, under another."""
    toys.save_itk(folder / written, scan() if not written.endswith(".png") else scan()[:, :, 7].astype(np.uint8))
    return of_bytes(folder, name, (folder / written).read_bytes())


@refused("its content is NRRD; rename it to .nrrd")
def nrrd_named_nifti(folder):
    return renamed(folder, "whole.nrrd", "odd.nii.gz")


@refused("its content is MetaImage; rename it to .mha")
def metaimage_named_nifti(folder):
    return renamed(folder, "whole.mha", "odd.nii")


@refused("its content is PNG; rename it to .png")
def png_named_nifti(folder):
    return renamed(folder, "whole.png", "odd.nii.gz")


@refused("its content is compressed with gzip; unpack it")
def nrrd_compressed_with_gzip(folder):
    path = toys.save_itk(folder / "whole.nrrd", scan())
    return of_bytes(folder, "odd.nrrd", gzip.compress(path.read_bytes()))


@refused("its content is NIfTI without compression; rename it to .nii")
def nifti_named_nrrd(folder):
    return of_bytes(folder, "odd.nrrd", nifti(folder, name="whole.nii").read_bytes())


@refused("a Git LFS pointer")
def pointer_of_git_lfs(folder):
    return of_bytes(folder, "odd.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


@refused("a web page")
def web_page_of_a_failed_download(folder):
    return of_bytes(folder, "odd.nii.gz", b"<!DOCTYPE html><html>403 Forbidden</html>")


@refused("Analyze 7.5")
def analyze(folder):
    nib.save(nib.AnalyzeImage(scan(), None), folder / "odd.img")
    return folder / "odd.hdr"


@refused("its voxels are in odd.img, which is missing")
def pair_without_its_voxels(folder):
    nib.save(nib.Nifti1Pair(scan(), toys.AFFINE), folder / "odd.img")
    (folder / "odd.img").unlink()
    return folder / "odd.hdr"


@refused("begin at byte 100")
def voxels_inside_the_header(folder):
    path = patched(folder, VOX_OFFSET, "f", 100)
    return of_bytes(folder, "odd.nii", path.read_bytes() + bytes(9))


@refused("is no rotation")
def quaternion_that_is_no_rotation(folder):
    image = nib.Nifti1Image(scan(), None)
    image.set_qform(toys.AFFINE, 1)
    image.header["quatern_b"] = image.header["quatern_c"] = 2
    nib.save(nib.Nifti1Image(scan(), None, image.header), folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@accepted
def nifti_without_compression_named_gz(folder):
    return of_bytes(folder, "odd.nii.gz", nifti(folder, name="whole.nii").read_bytes())


@accepted
def nifti_with_compression_named_nii(folder):
    return of_bytes(folder, "odd.nii", nifti(folder, name="whole.nii.gz").read_bytes())


@accepted
def bzip2(folder):
    return of_bytes(folder, "odd.nii.bz2", bz2.compress(nifti(folder, name="whole.nii").read_bytes()))


@accepted
def pair_of_header_and_voxels(folder):
    nib.save(nib.Nifti1Pair(scan(), toys.AFFINE), folder / "odd.img")
    return folder / "odd.hdr"


@accepted
def freesurfer(folder):
    nib.save(nib.MGHImage(scan(), toys.AFFINE), folder / "odd.mgz")
    return folder / "odd.mgz"


@accepted
def voxels_at_byte_0(folder):
    return patched(folder, VOX_OFFSET, "f", 0)


@accepted
def quaternion_off_by_rounding(folder):
    path = nifti(folder, name="odd.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, QUATERNION, 0.6, 0.6, 0.5292)
    path.write_bytes(content)
    return path


@accepted
def nrrd_with_a_fourth_axis_of_one(folder):
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(scan().T)]), str(folder / "odd.nrrd"))
    return folder / "odd.nrrd"


@accepted
def metaimage_with_a_fourth_axis_of_one(folder):
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(scan().T)]), str(folder / "odd.mha"))
    return folder / "odd.mha"


# --- odd, but whole --------------------------------------------------------------------------------------------------


@accepted
def constant_image(folder):
    return nifti(folder, np.full(toys.SHAPE, 7, np.int16))


@accepted
def one_voxel(folder):
    return nifti(folder, scan()[:1, :1, :1])


@accepted
def one_slice(folder):
    return nifti(folder, scan()[:, :, :1])


@accepted
def trailing_axes_of_one(folder):
    return nifti(folder, scan()[..., None, None])


@accepted
def no_orientation_codes(folder):
    image = nib.Nifti1Image(scan(), None)
    nib.save(image, folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@accepted
def codes_that_disagree(folder):
    image = nib.Nifti1Image(scan(), toys.AFFINE)
    image.set_sform(toys.AFFINE, 1)
    image.set_qform(np.diag([1.0, 1, 1, 1]), 1)
    nib.save(image, folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@accepted
def big_endian(folder):
    image = nib.Nifti1Image(scan(), toys.AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(image, folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@accepted
def nifti_2(folder):
    nib.save(nib.Nifti2Image(scan(), toys.AFFINE), folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@accepted
def slope_of_nan(folder):
    return patched(folder, SLOPE, "2f", float("nan"), float("nan"))


@accepted
def micrometres(folder):
    image = nib.Nifti1Image(scan(), toys.AFFINE * 1000)
    image.header.set_xyzt_units("micron")
    nib.save(image, folder / "odd.nii.gz")
    return folder / "odd.nii.gz"


@accepted
def far_away_origin(folder):
    affine = toys.AFFINE.copy()
    affine[:3, 3] = 1e7
    return nifti(folder, affine=affine)


@accepted
def huge_values(folder):
    return nifti(folder, scan().astype(np.float32) * np.float32(1e33))


@accepted
@posix
def link_to_a_scan(folder):
    target = nifti(folder, name="target.nii.gz")
    (folder / "odd.nii.gz").symlink_to(target)
    return folder / "odd.nii.gz"


@accepted
def spaces_in_the_name(folder):
    return nifti(folder, name=" two  words .nii.gz")


@accepted
@posix
def newline_in_the_name(folder):
    return nifti(folder, name="two\nlines.nii.gz")


@accepted
def other_scripts_in_the_name(folder):
    return nifti(folder, name="Müller_脳_мозг_🧠.nii.gz")


@accepted
@posix
def equals_and_colon_in_the_name(folder):
    return nifti(folder, name="a=b:c.nii.gz")


@accepted
@posix
def markup_in_the_name(folder):
    return nifti(folder, name="[red]$x_1$ <b> %s {0}.nii.gz")


@accepted
@posix
def broken_formula_in_the_name(folder):
    return nifti(folder, name="$\\frac{$ cost $5.nii.gz")


@accepted
@posix
def windows_path_as_a_name(folder):
    return nifti(folder, name="C:\\scans\\odd.nii.gz")


@accepted
@posix
def bytes_that_are_no_utf8_in_the_name(folder):
    return nifti(folder, name=os.fsdecode(b"odd_\xff\xe9.nii.gz"))


@accepted
@posix
def the_longest_name(folder):
    return nifti(folder, name="n" * 248 + ".nii.gz")


@accepted
def upper_case_suffix(folder):
    nifti(folder, name="plain.nii.gz").rename(folder / "ODD.NII.GZ")
    return folder / "ODD.NII.GZ"


@accepted
@posix
def a_name_reserved_on_windows(folder):
    return nifti(folder, name="con.nii.gz")


@accepted
@posix
def a_name_that_ends_in_a_dot(folder):
    return nifti(folder, name="odd..nii.gz")


@accepted
@posix
def a_name_with_signs_that_windows_refuses(folder):
    return nifti(folder, name='a<b>"c"|d?e*.nii.gz')


@accepted
def a_path_longer_than_windows_takes(folder):
    deep = folder.joinpath(*["a folder with a long name"] * 10)
    deep.mkdir(parents=True)
    return nifti(deep)
