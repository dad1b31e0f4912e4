"""List the kinds of input that the tests try, and what becomes of each: ``docs/kinds.csv`` and its counts.

    python -m lab.kinds            # collects the tests and writes both
    python -m lab.kinds --check    # changes nothing; exit code 1 if they differ from the tests

A kind is one parameter of a test that is listed here, or the test itself. ``make test`` runs these tests, so a row is
true as long as they pass. *right*: the exact voxels, grid, names or cases are asserted. *warned*: the same, and a
warning that names the doubt. *refused*: one line that names the cause; a command writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS, PAGE = ROOT / "docs/kinds.csv", ROOT / "docs/reliability.md"
OUTCOMES = ("right", "warned", "refused")
WARNED_SUPPORTS = ("the_same_support_twice", "a_copy_of_a_support")

TESTS: dict[str, dict[str, dict[str, str]]] = {
    "scans": {
        "tests/cli/test_cli_corpus.py": {
            "test_a_volume_that_cannot_be_segmented": "refused",
            "test_an_odd_volume_that_can": "right",
        },
        "tests/io/test_io_nifti.py": {
            "test_codes_and_both_forms_come_back": "right",
            "test_no_codes_is_a_warning": "warned",
            "test_forms_that_disagree_are_a_warning_and_the_sform_wins": "warned",
            "test_slope_and_intercept_apply_to_the_image_and_not_to_the_result": "right",
            "test_microns_become_millimetres_and_go_back": "right",
        },
        "tests/io/test_io_itk.py": {
            "test_every_volume_suffix_is_read": "right",
            "test_2d_metaimage_keeps_its_spacing": "right",
            "test_pictures_are_2d_and_know_no_millimetres": "right",
            "test_grey_in_colour_channels_is_grey": "right",
            "test_a_colour_picture_has_three_channels": "right",
            "test_a_stack_of_pages_is_refused": "refused",
        },
        "tests/io/test_io_volumes.py": {"test_channels_from_several_files": "right"},
        "tests/io/test_io_films.py": {
            "test_time_has_the_unit_of_the_header": "right",
            "test_every_frame_is_read": "right",
            "test_one_time_point_is_one_volume": "right",
            "test_the_time_axis_of_itk_comes_back": "right",
            "test_a_nan_names_its_frame": "refused",
            "test_a_film_cut_short_is_refused": "refused",
            "test_a_frame_that_does_not_exist": "refused",
            "test_frames_without_labels_are_found": "right",
            "test_a_film_without_labels": "refused",
        },
        "tests/io/test_io_pictures.py": {
            "test_the_kind_of_picture_is_named": "refused",
            "test_scans_and_labels_are_turned_upright": "right",
            "test_16_bit_values_and_pages_are_turned_too": "right",
            "test_16_bit_grey_keeps_its_values": "right",
            "test_pages_of_a_tiff_are_frames": "right",
            "test_a_gif_has_times": "right",
            "test_pages_of_another_size_are_refused": "refused",
            "test_colour_pages_are_refused": "refused",
            "test_frames_of_a_video_are_read_as_grey": "right",
            "test_a_variable_frame_rate_keeps_its_times": "right",
            "test_a_colour_video_is_a_warning": "warned",
            "test_a_video_is_no_label": "refused",
        },
        "tests/test_evaluation_films.py": {
            "test_labelled_frames_are_scored_and_changes_compared": "right",
            "test_films_that_do_not_fit_are_refused": "refused",
        },
        "tests/workflow/test_workflow_films.py": {
            "test_each_labelled_frame_is_an_example": "right",
            "test_a_label_of_one_volume_belongs_to_the_named_frame": "right",
            "test_a_labelled_film_that_is_refused": "refused",
            "test_as_many_volumes_as_channels_are_channels": "right",
        },
    },
    "DICOM": {
        "tests/io/test_io_films_dicom.py": {
            "test_time_points_of_a_series_are_frames": "right",
            "test_a_gated_series_with_a_missing_phase_is_refused": "refused",
            "test_echoes_are_no_time_points": "refused",
            "test_temporal_positions_of_an_enhanced_object_are_frames": "right",
            "test_ultrasound_is_a_film_in_2d": "right",
        },
        "tests/io/test_io_dicom.py": {
            "test_frames_with_positions_are_slices_in_every_class": "right",
            "test_slices_of_spect_are_no_film": "refused",
            "test_the_pixel_spacing_counts_in_every_class": "right",
            "test_slices_are_sorted_by_position_whatever_their_names": "right",
            "test_files_without_an_image_are_left_out_with_a_warning": "warned",
            "test_every_second_slice_missing_is_a_warning": "warned",
            "test_rounded_positions_pass": "right",
            "test_slices_that_wander_sideways": "refused",
            "test_one_slice_keeps_its_thickness": "right",
            "test_hounsfield_units_whatever_the_photometric_interpretation": "right",
            "test_low_values_in_white_that_cannot_be_told_to_the_reader_are_refused": "refused",
            "test_files_without_preamble_and_suffix": "right",
            "test_a_slice_without_position_among_others_is_named": "refused",
            "test_a_mosaic_is_refused": "refused",
        },
        "tests/io/test_io_dicom_acquisitions.py": {
            "test_several_volumes_in_one_series": "refused",
            "test_a_slice_sent_twice_is_read_once": "warned",
            "test_two_acquisitions_between_each_other_are_refused": "refused",
            "test_acquisitions_one_above_the_other_are_one_volume_with_a_warning": "warned",
        },
        "tests/io/test_io_dicom_frames.py": {
            "test_a_file_that_was_sent_twice_is_read_once": "warned",
            "test_an_enhanced_object_is_its_single_frame_series": "right",
            "test_a_converted_series_of_another_writer": "right",
            "test_rounded_positions_keep_the_spacing": "right",
            "test_compressed_frames_keep_their_own_slope": "right",
            "test_one_frame_keeps_its_place_and_thickness": "right",
            "test_an_enhanced_object_is_refused": "refused",
            "test_time_points_in_files_of_their_own_are_refused": "refused",
        },
        "tests/io/test_io_dicom_seg.py": {
            "test_our_own_is_read_with_its_values_names_and_colours": "right",
            "test_a_multi_frame_source": "right",
            "test_another_program_numbers_its_segments": "right",
            "test_headers_that_the_standard_forbids": "right",
            "test_orientations_that_differ_by_rounding": "right",
            "test_a_segmentation_beside_a_series_is_a_label": "right",
            "test_a_foreign_one_is_refused": "refused",
        },
        "tests/io/test_io_rtstruct.py": {
            "test_the_same_voxels_come_back": "right",
            "test_holes_and_pieces_of_another_program": "right",
            "test_a_scan_converted_to_nifti_gives_the_same": "right",
            "test_the_smaller_of_two_overlapping_structures_keeps_its_voxels": "warned",
            "test_doubts_are_warnings": "warned",
            "test_points_are_ignored_with_a_warning": "warned",
            "test_a_structure_set_is_refused": "refused",
            "test_two_structures_of_one_name_are_refused": "refused",
            "test_contours_need_a_scan": "refused",
            "test_a_folder_with_a_structure_set_is_that_label": "right",
        },
        "tests/io/test_io_contours.py": {"test_pixels_inside": "right"},
    },
    "label maps and supports": {
        "tests/cli/test_cli_corpus.py": {
            "test_a_support_that_cannot_be_adapted_to": "refused",
            "test_an_odd_support_that_can": "right",
        },
        "tests/io/test_io_names.py": {
            "test_supports_of_slicer": "right",
            "test_each_name_has_one_value": "right",
            "test_a_structure_that_the_others_lack_gets_a_value_of_its_own": "right",
            "test_contradictions_name_both": "refused",
            "test_a_value_without_a_name_never_joins_a_named_structure_of_another_file": "refused",
            "test_a_file_without_names_is_told_that_its_values_are_those_of_a_named_one": "warned",
            "test_evaluation_matches_by_name": "right",
            "test_evaluation_by_value_is_warned_of_and_by_the_names_of_a_run_is_right": "warned",
            "test_the_data_set_and_the_run_are_matched_by_name": "right",
        },
        "tests/io/test_io_label_values.py": {
            "test_gray_values_are_no_labels": "refused",
            "test_many_small_or_thin_structures_are_labels": "right",
            "test_many_specks_are_labels": "right",
            "test_an_edge_of_one_gray_value_is_a_warning": "warned",
            "test_a_label_map_given_as_a_scan_is_refused": "refused",
        },
        "tests/io/test_io_volumes.py": {
            "test_label_values_come_back_as_they_were": "right",
            "test_labels_that_a_slope_left_nearly_whole": "right",
            "test_0_255_masks_keep_255_and_warn": "warned",
        },
        "tests/io/test_io_itk.py": {"test_labels_as_pictures": "right"},
    },
    "folders and tables": {
        "tests/test_datasets_dicom.py": {
            "test_a_label_object_finds_its_series": "right",
            "test_series_without_a_label_and_labels_without_a_series": "warned",
            "test_two_labels_of_one_series_are_refused_but_copies_keep_their_own": "refused",
        },
        "tests/test_datasets_layouts.py": {
            "test_lits": "warned",
            "test_lits_with_two_files_of_one_number": "refused",
            "test_kits_19_and_23": "warned",
            "test_kits_21": "warned",
            "test_brats_of_both_generations": "warned",
            "test_totalsegmentator": "warned",
            "test_totalsegmentator_with_a_missing_mask_keeps_the_names_of_the_others": "right",
            "test_masks_that_overlap_are_refused": "refused",
            "test_btcv": "right",
            "test_amos": "right",
            "test_acdc": "warned",
            "test_promise12": "right",
            "test_verse": "right",
            "test_verse_of_2019": "right",
            "test_bids_derivatives": "warned",
            "test_bids_sessions_and_scans_beside_their_labels": "right",
            "test_bids_with_two_equal_labels_is_refused": "refused",
            "test_monai_label": "warned",
            "test_slicer_scenes": "warned",
            "test_a_broken_scene_is_named": "refused",
            "test_decathlon_with_channels_in_one_file": "right",
            "test_decathlon_with_other_channels_than_it_names": "refused",
            "test_regions_of_nnunet_become_their_values": "warned",
            "test_ignored_voxels_of_nnunet_leave_their_cases_usable": "right",
            "test_one_scan_and_one_label_in_a_folder_belong_together": "right",
        },
        "tests/test_datasets.py": {
            "test_msd": "right",
            "test_nnunet_v2_with_two_channels": "right",
            "test_nnunet_v1_lists_files_without_the_channel_number": "right",
            "test_json_mistakes_are_named": "refused",
            "test_paired_folders": "right",
            "test_one_folder_a_case": "right",
            "test_numbers_at_the_end_are_channels_only_where_the_label_says_so": "right",
            "test_dicom_series_folders": "right",
            "test_a_label_without_an_image_is_noted": "warned",
            "test_csv": "right",
            "test_csv_cases_in_folders_with_equal_file_names": "right",
            "test_csv_mistakes_name_the_line": "refused",
        },
        "tests/io/test_io_paths.py": {
            "test_labels_are_known_by_one_list_of_names": "right",
            "test_labels_beside_scans_are_no_scans": "right",
        },
        "tests/test_evaluation.py": {"test_references_under_the_names_of_public_sets": "right"},
    },
    "places": {
        "tests/test_where_it_runs.py": {
            "test_a_user_without_a_name_or_a_home": "right",
            "test_a_home_that_cannot_be_written_and_full_temporary_folders": "right",
            "test_in_a_notebook": "right",
        },
        "tests/io/test_io_files.py": {
            "test_a_rename_that_is_refused_for_a_moment_is_tried_again": "right",
            "test_a_rename_that_is_always_refused_fails": "refused",
        },
        "tests/test_faults.py": {
            "test_a_disk_that_is_really_full": "refused",
            "test_a_folder_that_may_not_be_written_to": "refused",
            "test_a_device_without_memory_hands_over_to_the_cpu": "warned",
            "test_no_memory_anywhere": "refused",
        },
    },
}


class Kind(NamedTuple):
    """One row of the list."""

    group: str
    kind: str
    outcome: str
    test: str


class _Collector:
    """A pytest plugin that keeps the collected tests: file, function, parameters."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str, str]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            file, _, rest = item.nodeid.partition("::")
            function, _, parameters = rest.partition("[")
            self.items.append((file, function, parameters.removesuffix("]")))


def collect() -> list[Kind]:
    """Return the kinds of all listed tests, as pytest collects them.

    Raises:
        LookupError: A listed test does not exist.
    """
    collector = _Collector()
    files = sorted({file for tests in TESTS.values() for file in tests})
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *files], plugins=[collector])
    if code:
        raise LookupError(f"the tests cannot be collected:\n{output.getvalue()[-2000:]}")
    return [*_kinds(collector.items)]


def _kinds(items: Iterable[tuple[str, str, str]]) -> Iterator[Kind]:
    items = list(items)
    for group, tests in TESTS.items():
        for file, functions in tests.items():
            for function, outcome in functions.items():
                found = [parameters for one, name, parameters in items if (one, name) == (file, function)]
                if not found:
                    raise LookupError(f"{file}: has no test {function}")
                for parameters in found:
                    own = "warned" if parameters in WARNED_SUPPORTS else outcome
                    node = f"{file}::{function}" + (f"[{parameters}]" if parameters else "")
                    yield Kind(group, _words(file, function, parameters), own, node)


def _words(file: str, function: str, parameters: str) -> str:
    if parameters and file.endswith("test_cli_corpus.py"):
        return parameters.replace("_", " ")
    return function.removeprefix("test_").replace("_", " ") + (f" ({parameters})" if parameters else "")


def counts(kinds: Iterable[Kind]) -> str:
    """Return the Markdown table of how many kinds end in which way."""
    kinds = list(kinds)
    found = Counter((kind.group, kind.outcome) for kind in kinds)
    lines = [f"| input | {' | '.join(OUTCOMES)} | kinds |", "|---|" + "---|" * (len(OUTCOMES) + 1)]
    for group in TESTS:
        numbers = [found[group, outcome] for outcome in OUTCOMES]
        lines.append(f"| {group} | {' | '.join(map(str, numbers))} | {sum(numbers)} |")
    totals = [sum(found[group, outcome] for group in TESTS) for outcome in OUTCOMES]
    return "\n".join([*lines, f"| **all** | {' | '.join(map(str, totals))} | {len(kinds)} |"])


def listing(kinds: Iterable[Kind]) -> str:
    """Return the content of ``docs/kinds.csv``."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Kind._fields)
    writer.writerows(kinds)
    return stream.getvalue()


def page(text: str, kinds: Iterable[Kind]) -> str:
    """Return the text of a page with the table between its marks."""
    block = re.compile(r"(<!-- kinds: begin -->\n)(.*?)(\n<!-- kinds: end -->)", re.DOTALL)
    return block.sub(lambda match: match[1] + counts(kinds) + match[3], text)


def main() -> int:
    """Write or check the list; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the files differ from the tests")
    check = parser.parse_args().check
    kinds = collect()
    wanted = {KINDS: listing(kinds), PAGE: page(PAGE.read_text(encoding="utf-8"), kinds)}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in [] if check else stale:
        path.write_text(wanted[path], encoding="utf-8")
    print(counts(kinds))
    if check and stale:
        print(f"stale: {', '.join(path.name for path in stale)}; run python -m lab.kinds")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
