"""Every column of every table is described beside it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medfewshot.data_dictionary import DATA_DICTIONARY, check_dictionary, meaning_of, write_table
from medfewshot.errors import InputError


def described(folder: Path) -> list[tuple[str, str, str]]:
    with open(folder / DATA_DICTIONARY, newline="") as file:
        return [(row["file"], row["column"], row["unit"]) for row in csv.DictReader(file)]


def test_each_table_has_its_rows_and_keeps_those_of_others(tmp_path):
    write_table(tmp_path / "scores.csv", [{"case_id": "a", "hd95_mm": 1.0}])
    write_table(tmp_path / "statistics.csv", [{"size_x_mm": 1.0}])
    write_table(tmp_path / "scores.csv", [{"dice": 1.0}])
    assert described(tmp_path) == [("scores.csv", "dice", ""), ("statistics.csv", "size_x_mm", "mm")]


def test_meanings_by_name_pattern_and_file():
    assert meaning_of("scores.csv", "hd95_mm")[0] == meaning_of("summary.csv", "hd95_mm_mean")[0] == "mm"
    assert "axis y" in meaning_of("statistics.csv", "centroid_voxel_y")[1]
    assert "false_alarm" in meaning_of("scores.csv", "status")[1]
    assert "workbench" in meaning_of("statistics.csv", "status")[1]
    assert meaning_of("scores.csv", "nonsense") == ("", "")


def test_a_file_of_somebody_else_stays(tmp_path):
    (tmp_path / DATA_DICTIONARY).write_text("variable,description\nage,years\n")
    with pytest.raises(InputError, match="no data dictionary of medfewshot"):
        check_dictionary(tmp_path)
