"""The list of kinds in the docs: every row is a test that exists, and the counts are those of the rows."""

from __future__ import annotations

import ast
import csv

from lab.kinds import KINDS, OUTCOMES, PAGE, ROOT, TESTS, Kind, counts


def rows() -> list[Kind]:
    with KINDS.open(encoding="utf-8", newline="") as file:
        return [Kind(**row) for row in csv.DictReader(file)]


def test_every_listed_test_exists_and_is_in_the_list():
    listed = {(file, function) for tests in TESTS.values() for file, names in tests.items() for function in names}
    for file in {file for file, _ in listed}:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert {function for one, function in listed if one == file} <= functions
    found = {tuple(row.test.split("[")[0].split("::")) for row in rows()}
    assert found == listed


def test_the_counts_on_the_page_are_those_of_the_rows():
    assert counts(rows()) in PAGE.read_text(encoding="utf-8")
    assert len(rows()) >= 230
    assert {row.outcome for row in rows()} == set(OUTCOMES)
    assert len({row.test for row in rows()}) == len(rows())
