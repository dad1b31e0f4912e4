"""The scan to label first is the one that is most like the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys
from grids import volume_of
from typer.testing import CliRunner

from medfewshot.cli.app import app
from medfewshot.errors import InputError
from medfewshot.types import Case
from medfewshot.workbench.choice import coarse_picture, mean_distances, most_typical_first


def ball(centre: float) -> np.ndarray:
    """A bright ball whose middle lies at ``centre`` along the first axis, as a share of the scan."""
    at = np.indices((24, 24, 24)) - np.array([centre * 24, 12, 12]).reshape(3, 1, 1, 1)
    return (1000 * np.exp(-(at**2).sum(0) / 40)).astype(np.int16)


def test_the_scan_in_the_middle_of_the_cohort_is_the_most_typical():
    distances = mean_distances([coarse_picture(volume_of(ball(at), np.eye(4))) for at in (0.2, 0.5, 0.6, 0.8)])
    assert distances.argsort().tolist()[:2] in ([1, 2], [2, 1])


def test_scale_and_orientation_of_a_scan_do_not_matter():
    plain = coarse_picture(volume_of(ball(0.3), np.eye(4)))
    turned = coarse_picture(volume_of(ball(0.3)[::-1].transpose(1, 0, 2) * 3 - 500, np.array(
        [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)))  # fmt: skip
    np.testing.assert_allclose(plain, turned, atol=1e-3)


def test_cases_are_ordered_and_bad_ones_are_named(tmp_path: Path):
    cases = []
    for number, at in enumerate((0.2, 0.5, 0.8, 0.5)):
        path = toys.save_nifti(tmp_path / f"s{number}.nii.gz", ball(at), np.eye(4))
        cases.append(Case(f"s{number}", f"s{number}", None, (path,)))
    cases[3].image_path.write_bytes(b"broken")
    ordered, skipped = most_typical_first(cases)
    assert ordered[0][0].case_id == "s1"
    assert len(ordered) == 3
    assert "s3.nii.gz" in skipped[0]
    toys.save_nifti(tmp_path / "s3.nii.gz", ball(0.5)[:, :, 12], np.eye(4))
    with pytest.raises(InputError, match="2D"):
        most_typical_first(cases)


def test_the_command_names_the_first_scan_to_label(tmp_path: Path):
    for number, at in enumerate((0.2, 0.5, 0.8)):
        toys.save_nifti(tmp_path / f"s{number}.nii.gz", ball(at), np.eye(4))
    done = CliRunner().invoke(app, ["suggest", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["scans"][0]["case"] == "s1"
    done = CliRunner().invoke(app, ["suggest", str(tmp_path), "--json", "-n", "2"])
    assert len(json.loads(done.stdout)["scans"]) == 2
    (tmp_path / "s0.nii.gz").write_bytes(b"broken")
    done = CliRunner().invoke(app, ["suggest", str(tmp_path)])
    assert done.exit_code == 1
    assert "s0.nii.gz" in done.output
    for number in (1, 2):
        (tmp_path / f"s{number}.nii.gz").write_bytes(b"broken")
    done = CliRunner().invoke(app, ["suggest", str(tmp_path)])
    assert done.exit_code == 2
    assert "no scan could be read: " in done.output


def test_the_channels_of_a_scan_are_one_scan(tmp_path: Path):
    for number, at in enumerate((0.2, 0.5, 0.8)):
        toys.save_nifti(tmp_path / f"s{number}_0000.nii.gz", ball(at), np.eye(4))
        toys.save_nifti(tmp_path / f"s{number}_0001.nii.gz", -ball(at), np.eye(4))
    done = CliRunner().invoke(app, ["suggest", str(tmp_path), "--json"])
    assert [row["case"] for row in json.loads(done.stdout)["scans"]] == ["s1", "s2", "s0"]
    assert "each scan has 2 files, its channels" in done.output
