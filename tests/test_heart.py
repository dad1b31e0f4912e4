"""Ejection fractions of volumes that are known on paper."""

from __future__ import annotations

import pytest

from medfewshot.errors import InputError
from medfewshot.heart import ejections, find_cavities


def test_volumes_at_the_frames_of_the_first_cavity():
    left, right = ejections({"LV": [90.0, 100.0, 40.0, 70.0], "RV": [80.0, 120.0, 60.0, 30.0]})
    assert (left.ed_frame, left.es_frame, left.edv_ml, left.esv_ml) == (1, 2, 100, 40)
    assert (left.stroke_ml, left.fraction_percent) == (60, 60)
    assert (right.edv_ml, right.esv_ml, right.fraction_percent) == (120, 60, 50)
    assert ejections({"LV": [0.0, 0.0]})[0].fraction_percent is None
    assert ejections({"LV": [90.0, 0.0, 40.0]})[0].fraction_percent is None  # not found, not emptied
    assert ejections({}) == ()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["right ventricle", "myocardium", "left ventricle"], ("left ventricle", "right ventricle")),
        (["LV", "RV", "Myo"], ("LV", "RV")),
        (["LV myocardium", "LV blood pool", "left_ventricle"], ("LV blood pool", "left_ventricle")),
        (["liver", "silver"], ()),
        (["myocardium of the left ventricle", "wall (RV)", "cavity of the LV"], ("cavity of the LV",)),
    ],
)
def test_ventricles_are_known_by_their_names(names, found):
    assert find_cavities(names) == found


def test_cavities_that_the_user_names():
    assert find_cavities(["atrium", "LV"], ["Atrium"]) == ("atrium",)
    with pytest.raises(InputError, match=r"aorta.*LV"):
        find_cavities(["LV"], ["aorta"])
