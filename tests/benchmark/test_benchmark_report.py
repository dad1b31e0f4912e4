"""Tables, tests and plots from finished cells whose numbers are known on paper."""

from __future__ import annotations

import csv

import pytest
import toys
from boards import DATASET, two_learners, write_cell, write_cells

from medfewshot.benchmark import plan_cells, write_report
from medfewshot.benchmark.comparison import compare
from medfewshot.benchmark.plots import style_of, volume_and_dice
from medfewshot.benchmark.results import read_groups
from medfewshot.benchmark.tables import (
    Table,
    cost_table,
    metrics_line,
    metrics_share,
    score_table,
    structure_table,
    whole_pool_dice,
)
from medfewshot.errors import InputError

CASES = [f"q{index}" for index in range(6)]
GOOD = {case: {1: 0.9, 2: 0.8} for case in CASES}
WORSE = {case: {1: 0.8 - index / 100, 2: 0.7} for index, case in enumerate(CASES)}


def groups_of(tmp_path, scores, **changes):
    cells = plan_cells(two_learners(**changes))
    write_cells(cells, tmp_path, scores)
    return read_groups(cells, tmp_path)


def row_of(table: Table, **wanted: str) -> dict[str, str]:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_scores_are_means_over_subjects_and_seeds(tmp_path):
    cells = plan_cells(two_learners(seeds=[0, 1]))
    mine = [cell for cell in cells if cell.learner.name == "one"]
    write_cell(mine[0], tmp_path, GOOD)
    write_cell(mine[1], tmp_path, {case: {1: 0.5, 2: 0.6} for case in CASES})
    groups = read_groups(cells, tmp_path)
    row = row_of(score_table(groups, 2.0), learner="one")
    assert row["Dice [95 % CI]"] == "0.700 [0.700, 0.700]"
    assert row["per seed"] == "0.850 0.550"
    assert row["HD95 mm"] == "3.0"
    assert row["surface Dice, 2 mm"] == "0.700"
    assert row["seeds"] == "2 of 2"
    assert row_of(score_table(groups, 2.0), learner="two")["Dice [95 % CI]"] == "not run"
    structure = row_of(structure_table(groups, 2.0), learner="one", structure="blob_2")
    assert structure["Dice [95 % CI]"] == "0.700 [0.700, 0.700]"
    assert structure["per seed"] == "0.800 0.600"


def test_missed_structures_count_as_zero_and_correct_absences_not_at_all(tmp_path):
    scores = {"q0": {1: 0.8, 2: 0.0}, "q1": {1: 0.6, 2: None}}
    groups = groups_of(tmp_path, {"one": scores})
    row = row_of(score_table(groups, 2.0), learner="one")
    assert row["Dice [95 % CI]"].startswith("0.500 ")  # mean of (0.8 + 0) / 2 and 0.6
    assert row["missed"] == "1"
    assert row["HD95 mm"] == "3.0"  # 10 * (1 - 0.8) and 10 * (1 - 0.6); the miss has none
    assert row_of(structure_table(groups, 2.0), learner="one", structure="blob_2")["per seed"] == "0.000"


def test_the_interval_runs_over_subjects_not_over_seeds(tmp_path):
    scores = {case: {1: 0.2 if index < 3 else 0.8} for index, case in enumerate(CASES)}
    one, three = (
        groups_of(tmp_path / str(len(seeds)), {"one": scores}, seeds=seeds)[0].summaries[-1]
        for seeds in ([0], [0, 1, 2])
    )
    assert one.dice_mean == pytest.approx(three.dice_mean)
    assert (one.dice_ci_low, one.dice_ci_high) == pytest.approx((three.dice_ci_low, three.dice_ci_high))


def test_no_distances_where_the_spacing_is_nominal(tmp_path):
    groups = groups_of(tmp_path, {"one": GOOD}, datasets=[{**DATASET, "distances": False}])
    row = row_of(score_table(groups, 2.0), learner="one")
    assert (row["HD95 mm"], row["surface Dice, 2 mm"]) == ("-", "-")
    assert row["Dice [95 % CI]"].startswith("0.850")


def test_costs(tmp_path):
    groups = groups_of(tmp_path, {"one": GOOD}, seeds=[0, 2])
    row = row_of(cost_table(groups), learner="one")
    assert (row["adaptation s"], row["steps"], row["peak GB"], row["s per query"]) == (
        "10.0 12.0",
        "7 7",
        "0.50",
        "0.50 0.50",
    )
    assert row["device peak GB"] == "-"
    # 1 s of metrics in 10 + 9 + 1 and 12 + 9 + 1 s; what one process took in all is no part of the sum.
    records = [result.record for result in groups[0].results]
    assert metrics_share(records) == pytest.approx(2 / 42)
    assert metrics_line(records)[0] == "Metrics took 4.8 % of the seconds that these cells recorded."
    assert (
        metrics_share([{"seconds": {"read": 1.0, "adapt": 2.0, "segment": 4.0, "metrics": 1.0}}]) == 1 / 8
    )  # oracle-2d
    assert metrics_share([{"seconds": {"adapt": 2.0}}]) is None
    assert row["metrics % of time"] == "4.8"


def test_learners_are_compared_over_subjects(tmp_path):
    (found,) = compare(groups_of(tmp_path, {"one": GOOD, "two": WORSE}, seeds=[0, 1]))
    assert (found.first, found.second, found.seeds, found.subjects, found.wins) == ("one", "two", 2, 6, 6)
    assert found.difference == pytest.approx(0.85 - (0.75 - 2.5 / 200))
    assert found.p == pytest.approx(2 / 64)
    assert found.p_holm == found.p


def test_only_seeds_that_both_have_are_compared(tmp_path):
    cells = plan_cells(two_learners(seeds=[0, 1]))
    write_cells([cell for cell in cells if cell.seed == 0], tmp_path, {"one": GOOD, "two": GOOD})
    write_cells([cell for cell in cells if cell.seed == 1], tmp_path, {"two": WORSE})
    (found,) = compare(read_groups(cells, tmp_path))
    assert (found.seeds, found.difference, found.p) == (1, 0.0, 1.0)


def test_the_whole_pool_is_shown_as_such_and_compared_with_itself_alone(tmp_path):
    config = two_learners(shots=["all", 1])
    write_cells(plan_cells(config), tmp_path, {"one": GOOD, "two": WORSE})
    groups = read_groups(plan_cells(config), tmp_path)
    assert [group.key[1:] for group in groups] == [(1, "one"), (1, "two"), ("all", "one"), ("all", "two")]
    assert row_of(score_table(groups, 2.0), learner="one", K="pool (2)")["Dice [95 % CI]"].startswith("0.850")
    assert whole_pool_dice(groups) == {"blobs": pytest.approx(0.85)}
    assert row_of(score_table(groups, 2.0), learner="two", K="1")["% of pool's Dice"] == "87"  # 0.7375 of 0.85
    assert "% of pool's Dice" not in score_table(groups[:2], 2.0).columns
    assert [(found.shots, found.first, found.second) for found in compare(groups)] == [
        (1, "one", "two"),
        ("all", "one", "two"),
    ]
    text = write_report(config, tmp_path, tmp_path / "report").read_text()
    assert "all n scans of the support pool, an upper bound" in text
    assert "| blobs | pool | one | two |" in text
    assert (tmp_path / "report" / "dice_vs_shots.png").is_file()


def test_a_report_of_the_whole_pool_alone(tmp_path):
    config = two_learners(shots=["all"])
    write_cells(plan_cells(config), tmp_path, {"one": GOOD})
    assert "| blobs | pool (2) | one | 0.850" in write_report(config, tmp_path, tmp_path / "report").read_text()


def test_a_report_says_what_was_not_run_and_what_failed(tmp_path):
    config = two_learners(seeds=[0, 1])
    cells = plan_cells(config)
    write_cells([cell for cell in cells if cell.seed == 0], tmp_path, {"one": GOOD})
    failed = next(cell for cell in cells if cell.id == "blobs/two/k1/s0")
    failed.folder(tmp_path).mkdir(parents=True)
    (failed.folder(tmp_path) / "failure.json").write_text(
        f'{{"fingerprint": "{failed.fingerprint}", "message": "out of luck"}}'
    )
    text = write_report(config, tmp_path, tmp_path / "report").read_text()
    assert "Cells: 1 done, 1 failed, 2 not run (of 4)." in text
    assert "- `blobs/two/k1/s0`: out of luck" in text
    assert "| blobs | 1 | two | not run |" in text
    assert "1 of 2" in text
    with (tmp_path / "report" / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label_name"] for row in rows] == ["blob_1", "blob_2", "all labels", "not run"]
    assert float(rows[2]["dice_mean"]) == pytest.approx(0.85)


def test_a_report_names_structures_that_a_draw_does_not_hold(tmp_path):
    config = two_learners()
    for cell in plan_cells(config):
        write_cell(cell, tmp_path, GOOD, unmarked=["gallbladder"])
    text = write_report(config, tmp_path, tmp_path / "report").read_text()
    assert text.count("- blobs, K = 1, seed 0: gallbladder\n") == 1


def test_a_report_names_what_weights_have_seen(tmp_path):
    config = two_learners()
    seen = {
        "other": {"subjects": ["a", "b"], "labels": {"1": "liver", "2": ""}},
        "plain": {"subjects": ["a", "b"], "labels": {}, "without_labels": ["a", "b"]},
    }
    for cell in plan_cells(config):
        write_cell(cell, tmp_path, GOOD, weights_have_seen=seen if cell.learner.name == "one" else {})
    text = write_report(config, tmp_path, tmp_path / "report").read_text()
    assert "- one: 2 subjects of other (liver, 2)\n" in text
    assert "- one: 2 subjects of plain (2 as images without labels)\n" in text
    assert "- two" not in text


def test_the_same_results_give_the_same_report(tmp_path):
    config = two_learners(seeds=[0, 1], shots=[1, 2])
    write_cells(plan_cells(config), tmp_path, {"one": GOOD, "two": WORSE})
    for name in ("a", "b"):
        write_report(config, tmp_path, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "comparisons.csv", "data_dictionary.csv", "dice_vs_seconds.png", "dice_vs_seconds.svg", "dice_vs_shots.png",
        "dice_vs_shots.svg", "dice_vs_volume.png", "dice_vs_volume.svg", "index.html", "summary.csv", "tables.md",
        "tables.tex",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    toys.assert_columns_described(tmp_path / "a")


def test_dice_lies_over_the_volume_of_structures_that_are_there(tmp_path):
    """Averaged over seeds; a missed structure has Dice 0, one that is rightly absent has no place."""
    scores = {"q0": {1: 0.8, 2: None}, "q1": {1: 0.0, 2: 0.6}}
    (group, _) = groups_of(tmp_path, {"one": scores}, seeds=[0, 1])
    volumes, dices = volume_and_dice(group)
    assert sorted(zip(volumes, dices, strict=True)) == [(1.0, 0.0), (1.0, 0.6), (1.0, 0.8)]
    nothing, _ = volume_and_dice(groups_of(tmp_path / "none", {})[0])
    assert nothing.shape == (0,)


def test_volumes_are_not_drawn_where_the_spacing_is_nominal(tmp_path):
    config = two_learners(datasets=[{**DATASET, "distances": False}])
    write_cells(plan_cells(config), tmp_path, {"one": GOOD})
    write_report(config, tmp_path, tmp_path / "report")
    drawn = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert drawn == {"dice_vs_seconds.png", "dice_vs_shots.png"}


def test_no_plot_of_an_earlier_report_stays(tmp_path):
    for name in ("dice_vs_shots.png", "dice_vs_volume.svg"):
        (tmp_path / name).touch()
    write_report(two_learners(), tmp_path / "run", tmp_path)
    assert not list(tmp_path.glob("dice_vs_*"))


def test_a_report_of_nothing(tmp_path):
    text = write_report(two_learners(), tmp_path, tmp_path / "report").read_text()
    assert "Cells: 2 not run (of 2)." in text
    assert not list((tmp_path / "report").glob("*.png"))


def test_damaged_scores_are_told(tmp_path):
    config = two_learners()
    cells = plan_cells(config)
    write_cells(cells, tmp_path, {"one": GOOD})
    (cells[0].folder(tmp_path) / "scores.csv").write_text("case_id,label\nq0,one\n")
    with pytest.raises(InputError, match=r"scores\.csv: is damaged"):
        read_groups(cells, tmp_path)


def test_latex_and_markdown_escape_what_they_must():
    table = Table("T", "a note", ("dataset", "Dice %"), (("a_b", "1|2 & 3"),))
    assert r"a\_b & 1|2 \& 3 \\" in table.latex()
    assert r"dataset & Dice \% \\" in table.latex()
    assert r"\begin{tabular}{lr}" in table.latex()
    assert r"| a_b | 1\|2 & 3 |" in table.markdown()


def test_no_two_of_fourteen_learners_are_drawn_alike():
    styles = [tuple(style_of(index).items()) for index in range(14)]
    assert len(set(styles)) == len(styles)
