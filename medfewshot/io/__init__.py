"""Read and write volumes, and check their geometry. The only room that knows file formats and headers."""

from medfewshot.io.dicom_source import referenced_series, series_of
from medfewshot.io.exports import EXPORTS, Export
from medfewshot.io.files import atomic_path, claimed, strict_json, write_csv, write_text
from medfewshot.io.formats import FORMATS, Film, Format
from medfewshot.io.formats.nifti import volumes_in_file
from medfewshot.io.geometry import as_2d, check_affine, check_same_grid, in_voxels
from medfewshot.io.label_values import check_is_image, check_is_label_map, values_of
from medfewshot.io.names import StructureNames, match_names, specific_names
from medfewshot.io.objects import NO_SPACING, VolumeLike, as_volume
from medfewshot.io.paths import (
    case_id,
    case_of_image,
    case_of_label,
    channel_of,
    dicom_labels,
    files_of,
    files_without_image,
    find_images,
    format_of,
    images_below,
    is_series_folder,
    labels_without_image,
    looks_like_label,
    output_suffix,
    series_folders,
    stem_of,
    volumes_in,
)
from medfewshot.io.placement import in_common_frame, in_frame_of
from medfewshot.io.scans import (
    Example,
    ReadImage,
    channels_in_file,
    first_volume,
    labelled_frames,
    open_film,
    open_scan,
    read_complete_examples,
    read_examples,
)
from medfewshot.io.volumes import read_image, read_label, read_label_pair, write_array, write_label, write_label_film

__all__ = [
    "EXPORTS", "Example", "Export", "Film", "FORMATS", "NO_SPACING", "ReadImage", "Format", "StructureNames",
    "VolumeLike", "as_2d", "as_volume", "atomic_path", "case_id", "case_of_image", "case_of_label", "channel_of",
    "channels_in_file", "check_affine", "check_is_image", "check_is_label_map", "check_same_grid", "claimed",
    "dicom_labels", "files_of", "files_without_image", "find_images", "first_volume", "format_of", "images_below",
    "in_common_frame", "in_frame_of", "in_voxels", "is_series_folder", "labelled_frames", "labels_without_image",
    "looks_like_label", "match_names", "open_film", "open_scan", "output_suffix", "read_complete_examples",
    "read_examples", "read_image", "read_label", "read_label_pair", "referenced_series", "series_folders", "series_of",
    "specific_names", "stem_of", "strict_json", "values_of", "volumes_in", "volumes_in_file", "write_array",
    "write_csv", "write_label", "write_label_film", "write_text",
]  # fmt: skip
