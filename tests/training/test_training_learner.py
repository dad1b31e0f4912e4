"""How a learner was meta-trained is how it is adapted; options reach the learner and its start from either place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from medfewshot.errors import InputError
from medfewshot.learners import Start, load_start, make_learner, save_start
from medfewshot.settings import AdaptSettings, load_settings
from medfewshot.synthetic import PopulationSettings
from medfewshot.training import BackboneSettings, TaskSettings, TrainSettings, train
from medfewshot.training.learner import make_meta_learner
from medfewshot.types import Support

DOCS = Path(__file__).resolve().parents[2] / "docs"
CPU = torch.device("cpu")
FLAT = TrainSettings(
    learner="maml",
    backbone=BackboneSettings(dims=2, width=4, levels=2),
    tasks=TaskSettings(synthetic=PopulationSettings(patches=((16, 16),), shots=(1, 1), ways=(1, 1))),
    steps=2,
    episodes_per_step=1,
    validation_episodes=1,
)


def made(learner: str = "maml", learner_options=None, start_options=None, weights=None):
    """The learner and the start of a run."""
    options = {"learner_options": learner_options or {}, "start_options": start_options or {}}
    return make_meta_learner(FLAT.replace(learner=learner, weights=weights, **options), CPU)


def kept(folder: Path, *args, **options) -> str:
    """The folder of a start that was made, and not trained."""
    save_start(made(*args, **options)[1], folder)
    return str(folder)


def adapted(weights: str, learner: str = "maml", **settings):
    return make_learner(AdaptSettings(learner=learner, weights=weights, device="cpu", **settings))


def support() -> Support:
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(16, 16, dtype=torch.int64)
    label[4:10, 5:12] = 1
    image = label + 0.3 * torch.randn(16, 16, generator=generator)
    return Support((image[None],), (label,), 2, (16, 16), (1.0, 1.0))


def test_anil_is_trained_kept_and_adapted_as_anil(tmp_path):
    options = {"variant": "anil", "inner_steps": 2, "batch_size": 3, "steps": 2, "annealing_episodes": 9}
    train(FLAT.replace(learner_options=options), tmp_path, device="cpu")
    weights = str(tmp_path / "start")
    described = json.loads((tmp_path / "start" / "start.json").read_text())
    assert described["adaptation"] == {"variant": "anil", "inner_steps": 2, "batch_size": 3}
    learner = adapted(weights, steps=0)
    assert learner.batch_size == 3
    assert learner.annealing_episodes != 9  # nothing that adaptation does not ask for
    segmenter = learner.adapt(support())
    assert segmenter.record["variant"] == "anil"
    assert segmenter.record["steps"] == segmenter.record["inner_steps"] == 2
    initial = load_start(weights).module.weights(2)
    # The start's two rows serve every voxel of a block, as adaptation begins with them.
    block = len(segmenter.network.head.bias) // 2
    for name in ("head.weight", "head.bias"):
        initial[name] = initial[name][:: len(initial[name]) // 2].repeat_interleave(block, 0)
    moved = {name for name, value in segmenter.network.named_parameters() if not torch.equal(value, initial[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("variant", ["fomaml", "reptile", "meta-sgd", "maml++"])
def test_every_variant_comes_back_as_what_it_was(tmp_path, variant):
    weights = kept(tmp_path, learner_options={"variant": variant, "inner_steps": 3, "inner_rate": 0.3})
    learner = adapted(weights, steps=7)
    assert (learner.variant, learner.inner_steps, learner.steps) == (variant, 3, 7)
    assert float(learner.start.inner_rate) == pytest.approx(0.3)
    rates = [value.shape for value in learner.start.rates.values()]
    assert bool(rates) == (variant in ("meta-sgd", "maml++"))
    assert variant != "maml++" or set(rates) == {(3,)}


@pytest.mark.parametrize("place", ["learner_options", "start_options"])
@pytest.mark.parametrize(
    ("learner", "given", "names"),
    [
        (
            "prototype",
            {"metric": "learned", "background": "threshold", "rank": 2},
            {"head.threshold", "head.learned.up"},
        ),
        ("ridge", {"frequency_power": 0.25, "scale": 3.0}, {"head.power_logit"}),
        ("protomaml", {"rates": "step", "inner_steps": 2}, {"rates.stem/weight"}),
    ],
)
def test_an_option_that_both_have_reaches_both_from_either_place(tmp_path, learner, given, names, place):
    trained, start = made(learner, **{place: given})
    assert {name: getattr(trained, name) for name in given} == given
    assert start.options == given
    assert names <= set(start.module.state_dict())
    save_start(start, tmp_path)
    again = load_start(tmp_path)
    assert all(torch.equal(value, again.module.state_dict()[name]) for name, value in start.module.state_dict().items())
    assert again.adaptation == start.adaptation


def test_prototypes_are_pooled_as_in_training(tmp_path):
    weights = kept(tmp_path, "prototype", {"cell": 2, "alignment": 0.0})
    learner = adapted(weights, "prototype", steps=0)
    assert learner.cell == 2
    assert learner.alignment == 1.0
    assert adapted(kept(tmp_path / "of maml"), "prototype", steps=0).cell == 4  # another learner's features alone


def test_a_seed_of_the_start_is_its_own():
    learner, start = made("prototype", {"seed": 3}, {"seed": 4, "metric": "learned"})
    assert learner.seed == 3
    assert start.options == {"seed": 4, "metric": "learned"}


def test_training_goes_on_as_before_unless_told_otherwise(tmp_path):
    weights = kept(tmp_path, learner_options={"variant": "maml++", "inner_steps": 3})
    learner, start = made(weights=weights)
    assert (learner.variant, learner.inner_steps) == ("maml++", 3)
    save_start(start, tmp_path / "again")  # with the options it was built with
    assert set(load_start(tmp_path / "again").module.rates) == set(start.module.rates)
    learner, start = made(weights=weights, learner_options={"variant": "fomaml", "inner_steps": 4})
    assert start.adaptation == {"variant": "fomaml", "inner_steps": 4, "batch_size": 1}
    assert start.options["inner_steps"] == 3


def test_what_contradicts_itself_is_refused_in_one_line(tmp_path):
    plain = kept(tmp_path / "maml")
    cosine = kept(tmp_path / "prototype", "prototype")
    refused = [
        (
            {"learner_options": {"variant": "maml++"}, "start_options": {"rates": "element"}},
            "learns rates of the kind step",
        ),
        ({"learner_options": {"inner_steps": 2}, "start_options": {"inner_steps": 3}}, "say it once"),
        ({"learner_options": {"variant": "meta-sgd"}, "weights": plain}, "made with rates fixed, not element"),
        ({"learner_options": {"inner_rate": 0.5}, "weights": plain}, "made with inner_rate 0.1, not 0.5"),
        (
            {"learner": "prototype", "learner_options": {"metric": "learned"}, "weights": cosine},
            "made with metric cosine",
        ),
        ({"learner_options": {"inner_steps": "two"}}, "learner_options inner_steps: 'two' is not a value"),
        ({"learner_options": {"variant": "mamal"}}, "variant mamal: unknown"),
        ({"learner_options": {"device": "cpu"}}, "no such setting"),
        ({"learner": "atlas"}, "has no meta-parameters"),
    ]
    for options, told in refused:
        with pytest.raises(InputError, match=re.escape(told)) as error:
            made(**options)
        assert "\n" not in str(error.value)


def test_the_example_in_the_documentation_is_valid(tmp_path):
    [example] = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "training.md").read_text(encoding="utf-8"), re.S | re.M)
    (tmp_path / "anil.yaml").write_text(example)
    settings = load_settings(TrainSettings, tmp_path / "anil.yaml")
    learner, start = make_meta_learner(settings, CPU)
    assert (learner.variant, learner.inner_steps) == ("anil", yaml.safe_load(example)["learner_options"]["inner_steps"])
    assert float(start.module.inner_rate) == pytest.approx(0.2)
    assert isinstance(start, Start)
