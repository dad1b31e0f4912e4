"""Words for a paper: a methods paragraph and the items of reporting guidelines that the record of a run answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfewshot.errors import MOST_SHOWN, InputError, counted, some
from medfewshot.io import case_id
from medfewshot.learners import LEARNERS, read_seen
from medfewshot.workflow.measures import unit_of
from medfewshot.workflow.record import CaseResult, damaged, read_run
from medfewshot.workflow.scoring import learned_cases, learned_names

TO_WRITE = (
    "where the scans come from, who was included, how they were made anonymous and acquired (CLAIM 7, 8, 11, 13)",
    "what the labels mean, who drew them, with which tool and training (CLAIM 14 to 17), and how well readers agree "
    "(CLAIM 18): `medfewshot compare`",
    "how the labelled scans were chosen, and whether a subject has several scans (CLAIM 19, 20)",
    "why this many scans (CLAIM 21; TRIPOD+AI 10): `medfewshot curve`",
    "how good the results are against references (CLAIM 37): `medfewshot evaluate`",
    "failures, limits and the intended use (CLAIM 39 to 41); medfewshot is for research only",
)
REFERENCES = (
    "CLAIM, update of 2024: Tejani et al., Radiology: Artificial Intelligence 6(4):e240300; the edition of 2020 "
    "numbers some items differently",
    "TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378",
    "Check the item numbers against the guidelines before you submit",
)


@dataclass(frozen=True)
class Item:
    """One subject that reporting guidelines ask about.

    Attributes:
        claim: Items of CLAIM 2024; a dash if none asks.
        tripod: Items of TRIPOD+AI.
        topic: What they ask about, in a few words.
        answer: What the run says.
    """

    claim: str
    tripod: str
    topic: str
    answer: str


@dataclass(frozen=True)
class Description:
    """What a run says about itself, in words.

    Attributes:
        paragraph: For the methods section.
        items: What the run answers of the guidelines.
        warnings: What to correct or to say in the paper.
    """

    paragraph: str
    items: tuple[Item, ...]
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return all of it in Markdown."""
        rows = [f"| {one.claim} | {one.tripod} | {one.topic} | {one.answer} |" for one in self.items]
        return "\n".join(
            [
                "## Methods", "", self.paragraph, "",
                *(["## Check this first", "", *(f"- {text}" for text in self.warnings), ""] if self.warnings else []),
                "## What the run answers", "",
                "| CLAIM | TRIPOD+AI | topic | answer |", "|---|---|---|---|", *rows, "",
                "## What only you can answer", "", *(f"- {text}" for text in TO_WRITE), "",
                "## Guidelines", "", *(f"- {text}" for text in REFERENCES), "",
            ]
        )  # fmt: skip


def describe(folder: Path) -> Description:
    """Describe a run in plain English, from its ``run.json``.

    Raises:
        InputError: It contains no run, or the record is damaged.
    """
    record, results = read_run(folder)
    try:
        facts = _Facts(record, results)
        scores = _scores(folder)
        sentences = (
            facts.made, facts.learned, facts.network, facts.start, facts.preparation, facts.training, facts.time,
            facts.after, facts.outcome, scores,
        )  # fmt: skip
        items = (
            Item("9", "7", "preparation of the data", f"{facts.preparation} {facts.after}".strip()),
            Item("19", "21", "number of scans", f"{facts.learned} {facts.outcome}"),
            Item("20", "12a", "training and test data apart", facts.apart),
            Item("22", "12c, 15", "model, inputs and outputs", f"{facts.network} {facts.output}"),
            Item("23", "18f, 22", "software", facts.software),
            Item("24", "12c", "where training starts", facts.start),
            Item("25", "12c", "training", facts.training),
            Item("28, 29, 37", "12e, 23a", "performance", scores or "Not scored: see `medfewshot evaluate`."),
            Item("-", "15", "how certain a result is", "Each structure has an expected Dice; it can be wrong."),
        )
        return Description(" ".join(filter(None, sentences)), items, facts.warnings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(folder, error) from None


class _Facts:
    """Sentences about one run."""

    def __init__(self, record: Mapping[str, Any], results: Sequence[CaseResult]) -> None:
        self.record, self.results = record, results
        self.plan, self.adaptation = record["plan"], record.get("adaptation", {})
        self.settings, self.learner = self.adaptation.get("settings", {}), self.adaptation.get("learner", {})
        self.versions = record.get("versions", {})
        self.supports = [case_id(Path(pair["image"])) for pair in record["supports"]]
        self.earlier = self.adaptation.get("earlier") or {}
        self.seen = _seen(self.adaptation, self.settings)

    @property
    def software(self) -> str:
        names = {"torch": "PyTorch", "monai": "MONAI", "python": "Python", "numpy": "NumPy", "platform": "on"}
        known = [f"{names.get(name, name)} {version}" for name, version in self.versions.items()]
        return f"{', '.join(known)}. Settings, seeds and versions are in run.json."

    @property
    def made(self) -> str:
        known = {name: self.versions.get(name, "unknown") for name in ("medfewshot", "torch", "monai")}
        return (
            f"We segmented {_listed(self.plan['labels'].values())} with medfewshot {known['medfewshot']} "
            f"(PyTorch {known['torch']}, MONAI {known['monai']}), a toolkit for few-shot segmentation."
        )

    @property
    def learned(self) -> str:
        before = {pair["image"] for pair in self.earlier.get("supports", ())}
        more = f"; the model that it continues, from {len(before)} more" if before else ""
        return f"The model learned from {counted(len(self.supports), 'labelled scan')} (the support set){more}."

    @property
    def start(self) -> str:
        weights = self.settings.get("weights")
        if not weights:
            return "It was trained from random weights." if self.learner.get("steps") else "No weights were used."
        if not self.seen:
            return f"It started from the weights {Path(weights).name}, for which no real training data is recorded."
        sets = [
            f"{name} ({len(one['subjects'])} subjects; {_listed(one['labels'].values())})"
            for name, one in self.seen.items()
        ]
        return f"It started from the weights {Path(weights).name}, which were trained on {_listed(sets)}."

    @property
    def preparation(self) -> str:
        spacing = " x ".join(f"{size:.3g}" for size in self.plan["spacing_mm"])
        kinds = dict.fromkeys(_scaling(one) for one in self.plan["normalization"])
        unit = unit_of([row for one in self.results for row in one.statistics])
        unit = unit if unit in ("pixels", "voxels") else "mm"
        return f"Scans were resampled to {spacing} {unit}, and gray values were {' and '.join(kinds)}."

    @property
    def network(self) -> str:
        name = self.settings.get("learner", "unknown")
        spec = LEARNERS.get(name)
        what = f": {spec.summary.replace('your', 'the')}" if spec is not None else ""
        size = self.learner.get("parameters")
        return f"The method was {name}{what}{f' ({size:,} parameters)' if size else ''}."

    @property
    def training(self) -> str:
        steps, seconds = self.learner.get("steps"), self.record.get("seconds", {}).get("adapt")
        text = f"Training took {counted(steps, 'step')}" if steps else "No network was trained"
        before = self.earlier.get("steps")
        text += f" after {counted(before, 'step')} of an earlier model" if before else ""
        text += ", and the time limit ended it" if self.learner.get("stopped_by") == "budget" else ""
        took = f"; {seconds:.0f} s" if seconds is not None else ""
        return f"{text} (random seed {self.record.get('seed')}{took} on {self.adaptation.get('device', 'a computer')})."

    @property
    def time(self) -> str:
        done = [sum(one.seconds.values()) for one in self.results if one.status == "done" and one.seconds]
        if not done:
            return ""
        return (
            f"The segmentation of a scan took {sum(done) / len(done):.1f} s on average on {self.record.get('device')}."
        )

    @property
    def after(self) -> str:
        labels = learned_names(self.record)
        kept = [labels[value] for value in self.plan.get("keep_largest", ()) if value in labels]
        if not (kept and self.record.get("options", {}).get("keep_largest", True)):
            return ""
        return f"Only the largest connected piece of {_listed(kept)} was kept."

    @property
    def outcome(self) -> str:
        done = sum(one.status == "done" for one in self.results)
        flagged = sum(bool(one.flags) for one in self.results)
        return (
            f"Of {counted(len(self.results), 'scan')}, {done} {'was' if done == 1 else 'were'} segmented and "
            f"{flagged} flagged as unlike the labelled scans or uncertain."
        )

    @property
    def output(self) -> str:
        kind = f"{self.plan['spatial_dims']}D image with {counted(self.plan['channels'], 'channel')}"
        return f"Input: a {kind}. Output: a label map on the grid of the scan."

    @property
    def apart(self) -> str:
        if both := learned_cases(self.record):
            return f"{counted(len(both), 'segmented scan')} of the support set: {some(both)}."
        return "No segmented scan is in the support set. The run does not know whether two scans are of one subject."

    @property
    def warnings(self) -> tuple[str, ...]:
        found = []
        if not self.record.get("finished"):
            found.append("the run is not finished: numbers and times will change")
        if both := learned_cases(self.record):
            found.append(f"the model learned from scans that it also segmented: do not score {some(both)}")
        subjects = {name for one in self.seen.values() for name in one["subjects"]}
        if known := [one.case for one in self.results if one.case in subjects]:
            found.append(f"the weights have seen {some(known)}: do not score them, or say so")
        return (*found, *self.record.get("warnings", ())[:10])


def _seen(adaptation: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return data set -> subjects and labels that the weights were trained on; records of early runs lack it."""
    if "weights_have_seen" in adaptation:
        return adaptation["weights_have_seen"] or {}
    try:
        return read_seen(settings["weights"]) if settings.get("weights") else {}
    except (InputError, OSError, ValueError):
        return {}


def _scores(folder: Path) -> str:
    """Return the means of ``summary.json``, if the run was scored into its own folder."""
    try:
        labels = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["labels"]
        rows = [f"{one['label_name']} {_mean(one)}" for one in labels if one["dice_mean"] is not None]
    except (OSError, ValueError, KeyError, TypeError):  # none, or of another program
        return ""
    scans = f" of {counted(labels[0]['cases'], 'scan')}" if rows and "cases" in labels[0] else ""
    return f"Mean Dice against the references{scans} (95 % bootstrap interval): {', '.join(rows)}." if rows else ""


def _mean(row: Mapping[str, Any]) -> str:
    """Write a mean Dice with its interval, which one scan alone does not have."""
    low, high = row["dice_ci_low"], row["dice_ci_high"]
    return f"{row['dice_mean']:.3f} ({'no interval' if low is None else f'{low:.3f} to {high:.3f}'})"


def _scaling(norm: Mapping[str, Any]) -> str:
    if norm["kind"] == "window":
        return f"clipped to {norm['low']:g} to {norm['high']:g} HU and standardized"
    return "standardized to zero mean and unit standard deviation"


def _listed(values: Iterable[object]) -> str:
    """Write a list as a sentence does; of a long one, the first ten."""
    texts = [str(value) for value in values]
    if not 1 < len(texts) <= MOST_SHOWN:
        return some(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"
