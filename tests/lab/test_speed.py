"""Speed: stages are timed relative to a reference, and a stage that became slow is named."""

from __future__ import annotations

from lab.studies import speed


def test_a_ratio_is_work_over_reference():
    counts: dict[str, int] = {"reference": 0, "matching": 0, "draft": 0}

    def work(name: str, rounds: int) -> None:
        counts[name] += 1
        for _ in range(rounds):
            sum(range(1000))

    found = speed.measure(
        {"matching": lambda: work("matching", 4000), "draft": lambda: work("draft", 1)},
        lambda: work("reference", 1000),
        rounds=3,
    )
    assert list(found) == ["reference", "matching", "draft"]
    assert counts == {"reference": 1 + 2 * 4, "matching": 3, "draft": 1}  # the long stages run once
    assert found["reference"][1] == 1
    assert 2 < found["matching"][1] < 8


def test_a_slower_stage_is_named(tmp_path):
    path = tmp_path / "speed.csv"
    speed.write_record({"reference": (0.5, 1.0), "matching": (5.0, 10.0)}, path)
    recorded = speed.read_record(path)
    assert recorded == {"reference": 1.0, "matching": 10.0}
    assert not speed.slower({"matching": (9.0, 14.9)}, recorded)  # seconds do not count
    assert speed.slower({"matching": (1.0, 15.0)}, recorded) == ["matching: 15.00 times the reference, recorded 10.00"]
    assert speed.slower({"other": (1.0, 1.0)}, recorded) == ["other: no record"]
