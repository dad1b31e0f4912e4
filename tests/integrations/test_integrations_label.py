"""The annotation server's app: adapt, segment, adapt again; and MONAI Label's own interfaces where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys

import medfewshot
from medfewshot.errors import InputError
from medfewshot.integrations.label_files import read_names, write_label_app
from medfewshot.integrations.label_session import choose_next, labelled_pairs, training_options, training_settings
from medfewshot.io import read_image, read_label
from medfewshot.settings import AdaptSettings
from medfewshot.workbench.session import LabelSession

TOY = AdaptSettings(learner="toy")
NAMES = {205: "left block", 420: "right block"}


@pytest.fixture
def scans(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    return toys.make_folders(tmp_path)


def pairs(scans, number: int):
    return [tuple(scans / "annotated" / kind / f"s{i}.nii.gz" for kind in ("images", "labels")) for i in range(number)]


def test_a_session_adapts_and_segments(scans):
    session = LabelSession(scans / "model", NAMES, "cpu")
    assert session.current is None
    assert session.labels == {"left block": 205, "right block": 420}
    with pytest.raises(InputError, match="no segmenter yet"):
        session.segment(scans / "cohort" / "q0.nii.gz", scans / "x.nii.gz")
    with pytest.raises(InputError, match="no scan is labelled"):
        session.adapt([], TOY)
    assert session.adapt(pairs(scans, 1), TOY)["supports"] == 1
    told = session.segment(scans / "cohort" / "q0.nii.gz", scans / "x.nii.gz")
    assert told["label_names"] == {"left block": 205, "right block": 420}
    written = read_label(scans / "x.nii.gz")
    expected = medfewshot.segment(scans / "cohort" / "q0.nii.gz", session.current, device="cpu").labels
    assert np.array_equal(written.data[0], expected)
    assert np.array_equal(written.affine, read_label(scans / "reference" / "q0.nii.gz").affine)


def test_a_later_adaptation_takes_over_and_old_ones_go(scans):
    session = LabelSession(scans / "model", device="cpu")
    for number, shots in enumerate((1, 2, 2, 2), start=1):
        session.adapt(pairs(scans, shots), TOY)
        assert session.current.name == f"segmenter-{number:04d}"
    assert len(session.segmenter().record["supports"]) == 2
    kept = sorted(path.name for path in (scans / "model").iterdir() if path.is_dir())
    assert kept == ["segmenter-0003", "segmenter-0004"]
    assert session.labels == {"label 205": 1, "label 420": 2}  # without names, as viewers number them


def test_a_scan_unlike_the_supports_is_looked_at_and_chosen(scans):
    session = LabelSession(scans / "model", device="cpu")
    with pytest.raises(InputError, match="no segmenter yet"):
        session.assess(scans / "cohort" / "q0.nii.gz")
    session.adapt(pairs(scans, 2), TOY)
    toys.save_nifti(scans / "cohort" / "odd.nii.gz", np.random.default_rng(0).normal(200, 60, toys.SHAPE))
    looks = {name: session.assess(scans / "cohort" / f"{name}.nii.gz") for name in ("q0", "q1", "odd")}
    assert looks["odd"]["distance"] > 3 * max(looks[name]["distance"] for name in ("q0", "q1"))
    assert looks["odd"]["uncertainty"] > max(looks[name]["uncertainty"] for name in ("q0", "q1"))
    assert {look["segmenter"] for look in looks.values()} == {"segmenter-0001"}
    assert json.dumps(looks)
    assert choose_next(looks) == "odd"


def test_labels_and_names_come_from_one_segmenter(scans):
    """Another process may replace the segmenter at any moment."""
    reads: list[Path] = []

    class Counting(LabelSession):
        @property
        def current(self) -> Path | None:
            reads.append(self.folder)
            return super().current

    session = Counting(scans / "model", device="cpu")
    session.adapt(pairs(scans, 1), TOY)
    answer = session.segment(scans / "cohort" / "q0.nii.gz", scans / "x.nii.gz")
    session.assess(scans / "cohort" / "q0.nii.gz")
    assert len(reads) == 2
    assert set(answer["predicted_dice"]) == {"label 205", "label 420"}
    assert "confidence" not in answer


def test_settings_of_a_training():
    conf = {"steps": "7", "auto_train": "false", "quality": "draft"}
    options = training_options(conf)
    assert (options["steps"], options["learner"], options["width"]) == ("7", "auto", "")
    assert training_settings(conf, {}) == AdaptSettings(steps=7, quality="draft")
    assert training_settings(conf, {"steps": 9, "model": "fewshot"}).steps == 9
    assert training_settings({}, {"steps": 0}) == AdaptSettings()  # 0: the learner's own
    with pytest.raises(InputError, match="budget_seconds"):
        training_settings({"budget_seconds": "soon"}, {})


@pytest.mark.parametrize(("name", "meant"), [("stepps", "steps"), ("auto_trian", "auto_train"), ("Learner", "learner")])
def test_a_typing_error_in_the_options_gives_a_warning(name, meant, recwarn):
    training_options({"models": "x", "skip_scoring": "true", "auto_update_scoring": "false", "labels": "x"})
    assert not recwarn.list  # some belong to MONAI Label
    with pytest.warns(UserWarning, match=f"conf {name}: is unknown .did you mean {meant}?"):
        training_options({name: "3"})


def look(uncertainty: float, distance: float, ts: int = 100) -> dict[str, float]:
    return {"uncertainty": uncertainty, "distance": distance, "ts": ts}


def test_whom_to_annotate_next():
    assert choose_next({}) is None
    assert choose_next({"b": {}, "a": {}}) == "a"  # nobody looked yet
    looks = {"a": {}, "b": look(0.1, 0.1), "c": look(0.3, 0.1), "d": look(0.2, 0.4), "e": look(0.2, 0.2)}
    # Ranks of uncertainty and distance: b 0 + 0, c 3 + 0, d 1 + 3, e 1 + 2.
    assert choose_next(looks) == "d"
    assert choose_next(looks, {"d": 99}) == "d"  # offered before it was looked at
    assert choose_next(looks, {"d": 100}) == "e"  # not wanted; of those that are left e has 1 + 2
    assert choose_next(looks, {"d": 100, "c": 100, "e": 100, "b": 100}) == "a"
    assert choose_next(looks, dict.fromkeys(looks, 100)) == "d"  # all were offered: from the beginning


def test_a_failed_adaptation_leaves_the_segmenter(scans):
    session = LabelSession(scans / "model", device="cpu")
    session.adapt(pairs(scans, 1), TOY)
    before = session.current
    toys.save_nifti(pairs(scans, 1)[0][1], np.zeros(toys.SHAPE, np.int16))
    with pytest.raises(InputError, match="no structure is marked"):
        session.adapt(pairs(scans, 1), TOY)
    assert session.current == before


def test_a_pointer_never_leads_elsewhere(scans):
    session = LabelSession(scans / "model", device="cpu")
    session.adapt(pairs(scans, 1), TOY)
    (scans / "model" / "current.json").write_text('{"segmenter": "../../elsewhere/segmenter-0001"}')
    assert session.current == scans / "model" / "segmenter-0001"
    (scans / "model" / "current.json").write_text("[]")
    with pytest.raises(InputError, match="damaged"):
        _ = session.current


def told(*names: str, first: int = 1) -> dict[str, object]:
    """What 3D Slicer tells about a label map: its segments in the order of the viewer."""
    return {"label_info": [{"name": name, "idx": number} for number, name in enumerate(names, start=first)]}


def renumbered(data: np.ndarray, values: dict[int, int]) -> np.ndarray:
    return sum(((data == old) * new).astype(np.int16) for old, new in values.items())


def submitted(scans, values: dict[int, int]) -> tuple[Path, Path]:
    image, label = pairs(scans, 1)[0]
    data = read_label(label).data[0]
    return image, toys.save_nifti(scans / "submitted.nii.gz", renumbered(data, values))


def test_segments_are_known_by_their_names(scans):
    known = {1: "right block", 2: "left block"}
    image, label = submitted(scans, {205: 1, 420: 2})  # the viewer has the left block first
    ((_, named),) = labelled_pairs([(image, label, told("left block", "right block"))], known)
    wanted = read_label(pairs(scans, 1)[0][1]).data
    assert np.array_equal(named.data, np.where(wanted == 205, 2, np.where(wanted == 420, 1, 0)))
    session = LabelSession(scans / "model", known, "cpu")
    session.adapt([(image, named)], TOY)
    assert session.segmenter().plan.labels == known
    # A label map without names has the values of the app. A new segment gets a new value.
    (_, plain), (_, more) = labelled_pairs([(image, label, {}), (image, label, told("vessel", "Left Block"))], known)
    assert np.array_equal(plain.data, read_label(label).data)
    assert more.names == {3: "vessel", 2: "Left Block"}
    session.adapt([(image, more)], TOY)
    assert session.labels == {**{name: value for value, name in known.items()}, "vessel": 3}


def test_a_segment_that_is_not_sent_counts_in_the_viewer_only(scans):
    image, label = submitted(scans, {205: 1, 420: 2})
    ((_, named),) = labelled_pairs([(image, label, told("a", "b", first=2))], {})  # the background was the first
    assert named.names == {1: "a", 2: "b"}
    with pytest.raises(InputError, match="has label 2, but 1 segments"):
        labelled_pairs([(image, label, told("a"))], {})


def test_results_are_numbered_as_viewers_number_them(scans):
    medfewshot.adapt(scans / "annotated", learner="toy", device="cpu", labels=NAMES).save(scans / "seg")
    write_label_app(scans / "app", segmenter=scans / "seg")
    assert read_names(scans / "app") == {1: "left block", 2: "right block"}
    session = LabelSession(scans / "app" / "model", read_names(scans / "app"), "cpu")
    assert session.segment(scans / "cohort" / "q1.nii.gz", scans / "x.nii.gz")["label_names"] == session.labels
    expected = session.segmenter().segment(read_image(scans / "cohort" / "q1.nii.gz")).labels
    assert np.array_equal(read_label(scans / "x.nii.gz").data[0], (expected == 205) + 2 * (expected == 420))


def test_an_app_on_disk(scans):
    named = {1: "left block", 2: "right block"}
    write_label_app(scans / "app", named)
    assert read_names(scans / "app") == named
    for wrong in (NAMES, None):
        with pytest.raises(InputError, match="not numbered 1, 2"):
            write_label_app(scans / "other", wrong)
    for wrong in ({1: "liver", 2: " Liver"}, {1: "background", 2: "liver"}):
        with pytest.raises(InputError, match="names are not unique, or one is background"):
            write_label_app(scans / "other", wrong)
    assert not (scans / "other").exists()
    compile((scans / "app" / "main.py").read_text(), "main.py", "exec")
    with pytest.raises(InputError, match="exists already"):
        write_label_app(scans / "app")
    (scans / "app" / "labels.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_names(scans / "app")


def test_the_app_in_monai_label(scans):
    pytest.importorskip("monailabel", reason="MONAI Label is not installed here; it needs an environment of its own")
    from monailabel.interfaces.exception import MONAILabelException
    from monailabel.utils.others.class_utils import get_class_of_subclass_from_file

    write_label_app(scans / "app", {1: "right block", 2: "left block"})
    kind = get_class_of_subclass_from_file("main", str(scans / "app" / "main.py"), "MONAILabelApp")
    app = kind(str(scans / "app"), str(scans / "cohort"), {"device": "cpu"})
    assert app.info()["models"] == {}  # nothing to run before the first training
    assert app.scoring({"method": "fewshot"}) == {}
    assert app.next_sample({"strategy": "fewshot"})["id"] == "q0"
    with pytest.raises(MONAILabelException, match="no scan is labelled"):
        app.train({"model": "fewshot", "learner": "toy"})
    store = app.datastore()
    drawn = read_label(scans / "reference" / "q0.nii.gz").data[0]
    toys.save_nifti(scans / "q0.nii.gz", renumbered(drawn, {205: 1, 420: 2}))
    store.save_label("q0", str(scans / "q0.nii.gz"), "final", told("left block", "right block"))
    assert app.train({"model": "fewshot", "learner": "toy"})["supports"] == 1
    assert app.info()["labels"] == {"right block": 1, "left block": 2}
    result = app.infer({"model": "fewshot", "image": "q1"})
    reference = read_label(scans / "reference" / "q1.nii.gz").data
    found = read_label(result["file"]).data
    for value, stored in ((1, 420), (2, 205)):
        one, other = found == value, reference == stored
        assert 2 * (one & other).sum() > 0.8 * (one.sum() + other.sum())
    assert json.dumps(result["params"])
    assert sorted(app.scoring({"method": "fewshot"})) == ["q1", "q2"]
    assert app.scoring({"method": "fewshot"}) == {}  # all were looked at by this segmenter
    assert app.next_sample({"strategy": "fewshot"})["id"] in ("q1", "q2")
