"""What a job does to learn: an instant draft of the open scan, the full adaptation, and drafts of all scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from medfewshot.bundle import VolumeSegmenter
from medfewshot.datasets import IGNORE_VALUE, Dataset
from medfewshot.errors import InputError, counted
from medfewshot.inference import Segmentation
from medfewshot.learners import LEARNERS, LearnerSpec
from medfewshot.settings import AdaptSettings, InferenceSettings
from medfewshot.types import Progress, Volume
from medfewshot.workbench.check import write_checks
from medfewshot.workbench.choice import Assessment, assess
from medfewshot.workbench.project import Project
from medfewshot.workbench.session import LabelSession
from medfewshot.workbench.uncertainty import MOST_VOXELS, write_uncertainty
from medfewshot.workflow import LabelledScans, adapt, can_continue, check_background, read_supports


def instant_learner(*, trains: bool) -> LearnerSpec:
    """Return the learner of instant drafts: the one that trains from weights, or the one that needs no training."""
    return next(one for one in LEARNERS.values() if one.instant_steps is not None and bool(one.instant_steps) == trains)


TRAINED, UNTRAINED = instant_learner(trains=True), instant_learner(trains=False)
INSTANT = AdaptSettings(learner=TRAINED.name, steps=TRAINED.instant_steps, learning_rate=4e-3, budget_seconds=8.0)
"""The adaptation of an instant draft. Reading and segmenting the scan come on top."""
WITHOUT_WEIGHTS = AdaptSettings(learner=UNTRAINED.name)
"""The same for scans that no weights fit."""
INSTANT_EXAMPLES = 3
"""The instant draft learns from the newest examples only."""
LEAST_CONFIDENCE = 0.7
"""Drafts with a lower expected Dice need a review."""
INSTANT_NAME = "instant"
CLEAR_GAIN = 0.25
"""Expected Dice by which the instant draft must be ahead of the full one to stay (``lab/notes/reliability.md``).
The two are different learners, so a small difference says nothing."""


@dataclass(frozen=True)
class Draft:
    """A draft in memory.

    Args:
        segmenter: Made it.
        done: The segmentation.
        found: How much a label of the scan would teach.
    """

    segmenter: VolumeSegmenter
    done: Segmentation
    found: Assessment

    @property
    def confidence(self) -> float:
        """Expected mean Dice."""
        return 1 - self.found.uncertainty


class Learning:
    """One run of the job.

    Args:
        project: The project.
        open_case: The case that the user looks at.
        progress: Receives events of the stages; may cancel.
        warn: Receives warnings, one line each.
        device: Where to compute.
        instant: Settings of the instant draft's adaptation.
    """

    def __init__(
        self,
        project: Project,
        *,
        open_case: str | None,
        progress: Progress,
        warn: Callable[[str], None] = lambda text: None,
        device: str = "auto",
        instant: AdaptSettings = INSTANT,
    ) -> None:
        self.project, self.open_case, self.progress, self.warn = project, open_case, progress, warn
        self.device, self.instant = device, instant.replace(device=device)
        self.used: list[str] = []
        names = {one.value: one.name for one in project.structures}
        self.session = LabelSession(project.folder / "segmenters", names, device)

    def run(self) -> None:
        """Learn, and write drafts.

        Raises:
            InputError: No example can be used.
            Cancelled: The user cancelled.
        """
        examples = self.read_examples()
        before = self.session.segmenter() if self.session.current is not None else None
        instant = None
        if self.open_case is not None and not self.project.facts(self.open_case).complete:
            try:
                instant = self.instant_draft(self.open_case, examples, before)
            except InputError as error:  # the open case is not like the newest examples
                self.warn(f"{self.open_case} has no instant draft: {error}")
        settings = AdaptSettings(**{**self.project.settings, "device": self.device})
        start = before if before is not None and can_continue(settings, before) else None
        learned = self.session.adapt_to(
            examples, settings, cohort=self.other_scans(), start=start, progress=self.progress
        )
        for warning in learned["warnings"]:
            self.warn(warning)
        segmenter = self.session.segmenter()
        write_checks(self.project, self.used, segmenter.record["support_check"])
        self.write_drafts(segmenter, instant)

    def other_scans(self) -> Iterator[Volume]:
        """Read the scans that are no examples, one at a time; unreadable ones are skipped."""
        for case in self.project.cases():
            if case.name not in self.used:
                with suppress(InputError, OSError):
                    yield self.project.read_scan(case.name)

    def read_examples(self) -> LabelledScans:
        """Read every example that can be read, of the most frequent kind; the others give a warning.

        Raises:
            InputError: None can be read.
        """
        names = {one.value: one.name for one in self.project.structures}
        read: dict[str, LabelledScans] = {}
        examples, problem = self.project.examples(), ""
        for number, case in enumerate(examples):
            name = case.case_id
            self.progress.at("reading supports").update(number, len(examples), name)
            try:
                found = read_supports(Dataset(name, None, names, (case,), ignore=IGNORE_VALUE))
                check_background(found.labels, tuple(names))
                read[name] = found
            except (InputError, OSError) as error:
                problem = f"{name} is not used: {error}"
                self.warn(problem)
        if not read:
            raise InputError(problem or "no structure is drawn yet", "draw one in a scan, then learn")
        kinds = {name: kind_of(one.images[0]) for name, one in read.items()}
        usual, _ = Counter(kinds.values()).most_common(1)[0]
        for name, kind in kinds.items():
            if kind != usual:
                self.warn(f"{name} is not used: it is {in_words(kind)}, most examples are {in_words(usual)}")
        self.used += [name for name, kind in kinds.items() if kind == usual]
        images = [read[name].images[0] for name in self.used]
        return LabelledScans(images, [read[name].labels[0] for name in self.used], names)

    def instant_draft(self, name: str, examples: LabelledScans, before: VolumeSegmenter | None) -> Draft:
        """Write a draft of one case from few steps, or from registration if no weights fit the scans; return it."""
        newest = slice(-INSTANT_EXAMPLES, None)
        few = LabelledScans(examples.images[newest], examples.labels[newest], examples.names)
        progress = self.progress.at("instant draft")
        progress.update(0, 1, name)
        kind = kind_of(few.as_2d_if_planar().images[0])
        if before is not None and before.segmenter.trained_network is not None:
            record = {"settings": {"learner": self.instant.learner}}
            start = VolumeSegmenter(before.plan, before.segmenter, record)
            segmenter = adapt(few, self.instant, start=start, compare=False)
        elif self.instant.learner == INSTANT.learner and kind not in TRAINED.weights:
            segmenter = adapt(few, WITHOUT_WEIGHTS.replace(device=self.device), compare=False)
        else:
            segmenter = adapt(few, self.instant, compare=False)
        draft = self.make_draft(name, segmenter)
        self.write_draft(name, draft, INSTANT_NAME, reason="instant draft: a better one follows")
        progress.update(1, 1, name)
        return draft

    def write_drafts(self, segmenter: VolumeSegmenter, instant: Draft | None = None) -> None:
        """Write a draft of every case without a complete mask, the open case first.

        If the instant draft of the open case is expected to be clearly better, its segmenter makes all drafts. This is
        decided only in a case without a label: what a segmenter expects in its own example says nothing.
        """
        if self.open_case in self.used:
            instant = None
        waiting = [case.name for case in self.project.cases() if not self.project.facts(case.name).complete]
        waiting.sort(key=lambda name: name != self.open_case)
        progress = self.progress.at("drafts")
        label = self.session.current.name if self.session.current is not None else ""
        for number, name in enumerate(waiting):
            progress.update(number, len(waiting), name)
            try:
                draft = self.make_draft(name, segmenter)
                is_open = name == self.open_case
                if is_open and instant is not None and instant.confidence - draft.confidence > CLEAR_GAIN:
                    self.warn(
                        f"all drafts are made like the instant one: its expected Dice on {name} is "
                        f"{instant.confidence:.2f}, after full adaptation {draft.confidence:.2f}; draw more slices"
                    )
                    draft, segmenter, label = instant, instant.segmenter, INSTANT_NAME
                self.write_draft(name, draft, label)
            except (InputError, OSError, RuntimeError) as error:
                self.warn(f"{name} has no draft: {error}")
        progress.update(len(waiting), len(waiting), "done")

    def make_draft(self, name: str, segmenter: VolumeSegmenter) -> Draft:
        """Segment one case. Large scans get no map of their uncertainty."""
        volume = self.project.read_scan(name)
        done = segmenter.segment(volume, InferenceSettings(uncertainty=volume.data[0].size <= MOST_VOXELS))
        return Draft(segmenter, done, assess(segmenter, volume, done))

    def write_draft(self, name: str, draft: Draft, label: str, *, reason: str | None = None) -> None:
        """Write a draft to the project; ``label`` names its segmenter."""
        reason = reason_to_look(draft.done, draft.confidence, draft.segmenter) if reason is None else reason
        written = self.project.write_draft(
            name, draft.done.labels, confidence=draft.confidence, reason=reason, distance=draft.found.distance,
            segmenter=label,
        )  # fmt: skip
        if written and draft.done.uncertainty is not None:
            write_uncertainty(self.project, name, draft.done.uncertainty)


def kind_of(image: Volume) -> tuple[int, int]:
    """Return what the examples of one segmenter have in common: the numbers of axes and of channels."""
    return image.spatial_dims, image.data.shape[0]


def in_words(kind: tuple[int, int]) -> str:
    """Return a kind as a user reads it, e.g. ``3D with 2 channels``."""
    return f"{kind[0]}D with {counted(kind[1], 'channel')}"


def reason_to_look(done: Segmentation, confidence: float, segmenter: VolumeSegmenter) -> str:
    """Why a person should look at a draft: flags, missing structures, or a low expected Dice; empty if nothing is."""
    missing = [segmenter.plan.labels[value] for value, count in done.voxels.items() if not count]
    reasons = [*done.flags, *(f"{name} was not found" for name in missing)]
    if not reasons and confidence < LEAST_CONFIDENCE:
        reasons.append(f"expected Dice {confidence:.2f}")
    return "; ".join(reasons[:3])
