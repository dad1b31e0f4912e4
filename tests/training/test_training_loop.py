"""The loop learns, averages, validates on what it does not train on, and goes on to the bit after a kill."""

from __future__ import annotations

import threading

import pytest
import torch
from safetensors.torch import load_file
from toy_tasks import StoppingSource, ToyLearner, ToySource, ToyStart, read_log

from medfewshot.backbones import seeded
from medfewshot.episodes import episode_seed
from medfewshot.errors import InputError
from medfewshot.io.tensors import read_tensors, write_tensors
from medfewshot.training.checkpoint import NAME
from medfewshot.training.distributed import World
from medfewshot.training.logs import TRAINING, VALIDATION
from medfewshot.training.loop import Trainer, query_dice, warm_cosine
from medfewshot.training.settings import TrainSettings

SETTINGS = TrainSettings(
    steps=12, episodes_per_step=2, learning_rate=0.05, validate_every=5, validation_episodes=3, checkpoint_every=4,
    log_every=3, ema=0.9, warm_up=0.2,
)  # fmt: skip


def trainer(folder, settings=SETTINGS, source=None, noise=0.0) -> Trainer:
    torch.manual_seed(0)
    source = source or ToySource()
    return Trainer(ToyLearner(ToyStart(), noise), source, ToySource(), settings, folder)


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 0.05), ("muon", 0.2)])  # a step of Muon's is 0.2 rates long
def test_the_loss_falls_and_the_query_is_found(tmp_path, optimizer, rate):
    changes = {"optimizer": optimizer, "learning_rate": rate}
    run = trainer(tmp_path, SETTINGS.replace(steps=80, validate_every=80, validate_dice=True, **changes))
    before = run._validate()
    outcome = run.run()
    assert outcome["steps"] == 80
    assert outcome["validation"]["loss"] < before["loss"] - 0.3
    assert outcome["validation"]["dice"] > 0.9
    rows = read_log(tmp_path / TRAINING)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert [row["step"] for row in read_log(tmp_path / VALIDATION)] == [80]


@pytest.mark.parametrize(("killed_at", "optimizer"), [(1, "adamw"), (9, "muon"), (13, "adamw"), (23, "muon")])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, killed_at, optimizer):
    """To the bit: weights, average, optimiser and log, whatever the moment of the kill, randomness in the loss too."""
    settings = SETTINGS.replace(optimizer=optimizer)
    whole = trainer(tmp_path / "whole", settings, noise=0.5)
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", settings, source=StoppingSource(killed_at), noise=0.5).run()
    resumed = trainer(tmp_path / "cut", settings, noise=0.5)
    torch.manual_seed(99)  # after the trainer, which is made from seed 0
    resumed.run(resume=True)
    first, second = (load_file(tmp_path / name / NAME) for name in ("whole", "cut"))
    assert first.keys() == second.keys()
    assert len(first) > 10
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    for log in (TRAINING, VALIDATION):
        rows = [read_log(tmp_path / name / log) for name in ("whole", "cut")]
        kept = [[{k: v for k, v in row.items() if "second" not in k} for row in part] for part in rows]
        assert kept[0] == kept[1]
    for a, b in zip(whole.start.parameters(), resumed.start.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_other_thread_seeds_torch_while_a_loss_draws(tmp_path):
    run, built = trainer(tmp_path), threading.Event()

    class Drawing(ToyLearner):
        def meta_loss(self, episode):
            self.other = threading.Thread(target=seeded, args=(lambda: built.set() or torch.nn.Linear(1, 1), 0))
            self.other.start()
            self.disturbed = built.wait(0.2)
            return super().meta_loss(episode)

    run.learner = Drawing(run.start, 0.0)
    run._loss(ToySource().sample(1), 5)
    run.learner.other.join()
    assert not run.learner.disturbed
    assert built.is_set()


def test_what_a_loss_draws_is_its_episodes_own(tmp_path):
    """It follows from the episode's seed alone, and leaves the generator of whoever asks as it was."""
    run = trainer(tmp_path, noise=0.5)
    episode = ToySource().sample(1)
    before = torch.get_rng_state()
    first = run._loss(episode, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(run._loss(episode, 5), first)
    assert not torch.equal(run._loss(episode, 6), first)


def test_a_row_cut_off_by_the_kill_is_written_again(tmp_path):
    trainer(tmp_path).run()
    path = tmp_path / TRAINING
    whole = path.read_text()
    path.write_text(whole[:-9])
    trainer(tmp_path).run(resume=True)  # at its end already: nothing is trained, the broken row is dropped
    assert [row["step"] for row in read_log(path)] == [3, 6, 9]


@pytest.mark.parametrize("text", ["", "step,lo"])
def test_a_log_cut_off_in_its_head_is_begun_anew(tmp_path, text):
    for log in (TRAINING, VALIDATION):
        (tmp_path / log).write_text(text)
    trainer(tmp_path).run(resume=True)
    assert [row["step"] for row in read_log(tmp_path / TRAINING)] == [3, 6, 9, 12]
    assert [row["step"] for row in read_log(tmp_path / VALIDATION)][-1] == 12


def test_a_run_killed_after_its_last_step_still_tells_the_validation(tmp_path):
    whole = trainer(tmp_path).run()
    assert whole["validation"]["loss"] > 0
    assert trainer(tmp_path).run(resume=True) == whole


def test_other_settings_are_not_resumed(tmp_path):
    trainer(tmp_path).run()
    with pytest.raises(InputError, match="other settings"):
        trainer(tmp_path, SETTINGS.replace(learning_rate=0.1)).run(resume=True)


@pytest.mark.parametrize("name", ["learner_options", "start_options"])
def test_an_option_that_is_new_is_another_setting(tmp_path, name):
    trainer(tmp_path).run()
    with pytest.raises(InputError, match=rf"other settings \({name}\)"):
        trainer(tmp_path, SETTINGS.replace(**{name: {"inner_steps": 3}})).run(resume=True)


def test_a_setting_that_an_earlier_version_did_not_have_is_no_other_setting(tmp_path):
    trainer(tmp_path).run()
    tensors, facts = read_tensors(tmp_path / NAME)
    del facts["settings"]["tasks"]["synthetic"]["merge"]
    write_tensors(tmp_path / NAME, tensors, facts)
    trainer(tmp_path).run(resume=True)
    facts["settings"]["tasks"]["synthetic"]["depth"] = 3
    write_tensors(tmp_path / NAME, tensors, facts)
    with pytest.raises(InputError, match=r"other settings \(tasks\)"):
        trainer(tmp_path).run(resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    trainer(tmp_path).run()
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be resumed"):
        trainer(tmp_path).run(resume=True)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    trainer(tmp_path).run()
    before = (tmp_path / NAME).read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space"):
        trainer(tmp_path, SETTINGS.replace(seed=1)).run()
    assert (tmp_path / NAME).read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_average_is_what_validation_sees(tmp_path):
    run = trainer(tmp_path)
    run.run()
    own = run.start.sharpness.item()
    with run.averaged():
        assert run.start.sharpness.item() == run.ema["sharpness"].item() != own
    assert run.start.sharpness.item() == own


class CountingStart(ToyStart):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("episodes", torch.tensor(100))


class CountingLearner(ToyLearner):
    def meta_loss(self, episode):
        seen.append(int(self.start.episodes))
        self.start.episodes += self.start.training  # as MAML++ does for loops of other people
        return super().meta_loss(episode)


class WithoutOthers(World):
    """One of two processes; what the other one adds is nothing."""

    def sum_gradients(self, parameters):
        pass

    def sum(self, values):
        return values

    def from_first(self, values):
        return values

    def wait(self):
        pass


seen: list[int] = []


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2)])
def test_a_start_counts_the_episodes_of_all_processes(tmp_path, rank, size):
    """From where it was; each process sees the numbers that its episodes have in a single one's run."""
    seen.clear()
    settings = SETTINGS.replace(steps=4, episodes_per_step=3, validate_every=9, validation_episodes=1)
    world = WithoutOthers(rank, size)
    start = CountingStart()
    Trainer(CountingLearner(start), ToySource(), ToySource(), settings, tmp_path, world=world).run()
    dealt = [100 + 3 * step + number for step in range(4) for number in range(rank, 3, size)]
    assert seen[: len(dealt)] == dealt
    assert int(start.episodes) == 112


def test_not_a_number_skips_a_step(tmp_path):
    class Broken(ToySource):
        def sample(self, seed, *, progress=1.0, **options):
            episode = super().sample(seed, progress=progress, **options)
            if progress == 0.5:
                episode.query.image[:] = float("nan")
            return episode

    run = trainer(tmp_path, source=Broken())
    outcome = run.run()
    assert outcome["skipped"] == 1
    assert all(bool(p.isfinite().all()) for p in run.start.parameters())


def test_minutes_end_a_run(tmp_path):
    run = trainer(tmp_path, SETTINGS.replace(steps=10**9, minutes=0.01))
    outcome = run.run()
    assert 0.6 <= outcome["seconds"] < 5
    assert outcome["steps"] < 10**6


def test_every_episode_of_a_step_counts_alike(tmp_path):
    """One step on two episodes is the step along the mean of their gradients."""
    run = trainer(tmp_path, SETTINGS.replace(clip=1e9))
    expected = []
    for number in range(2):
        loss = run._loss(ToySource().sample(episode_seed(0, 0, number)), 0)
        expected.append(torch.autograd.grad(loss, list(run.start.parameters())))
    run._train_step(0.0)
    for parameter, a, b in zip(run.start.parameters(), *expected, strict=True):
        torch.testing.assert_close(parameter.grad, (a + b) / 2)


def test_the_schedule_rises_and_falls():
    assert warm_cosine(0.1, 0.1) == 1
    assert warm_cosine(0.05, 0.1) == pytest.approx(0.5)
    assert warm_cosine(0.55, 0.1) == pytest.approx(0.5)
    assert warm_cosine(1.0, 0.1) == pytest.approx(0.0)


def test_dice_counts_classes_that_are_there():
    episode = ToySource().sample(1)

    class Perfect:
        start = None

        def adapt(self, support):
            return lambda image: torch.nn.functional.one_hot(episode.query.label, 2).movedim(-1, 1).float()

    assert query_dice(Perfect(), episode).tolist() == pytest.approx([1.0])
    episode.query.label[:] = 0
    assert query_dice(Perfect(), episode).tolist() == []


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"ema": 1.0}, {"learning_rate": 0.0}, {"minutes": -1.0}, {"optimizer": "sgd"}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SETTINGS.replace(**wrong)
