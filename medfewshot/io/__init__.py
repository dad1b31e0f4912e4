"""Read and write volumes, and check their geometry. The one room that knows file formats."""

from medfewshot.io.dicom_seg import can_refer_to, write_dicom_seg
from medfewshot.io.files import atomic_path, write_text
from medfewshot.io.find import find_images, is_dicom_folder
from medfewshot.io.geometry import check_affine, check_same_grid, in_frame_of
from medfewshot.io.load import read_image, read_label
from medfewshot.io.naming import case_id, output_suffix
from medfewshot.io.save import write_array, write_label

__all__ = [
    "atomic_path",
    "can_refer_to",
    "case_id",
    "check_affine",
    "check_same_grid",
    "find_images",
    "in_frame_of",
    "is_dicom_folder",
    "output_suffix",
    "read_image",
    "read_label",
    "write_array",
    "write_dicom_seg",
    "write_label",
    "write_text",
]
