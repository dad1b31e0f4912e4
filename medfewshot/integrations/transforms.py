"""Few-shot segmentation as a transform: an image goes in, a label map on the same grid comes out."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple_rep
from torch import Tensor

from medfewshot.api import PathOrArray, adapt
from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.inference import InferenceOptions, Segmentation
from medfewshot.integrations.inferer import segment_tensor
from medfewshot.settings import AUTO
from medfewshot.types import Plan

SupportGiven = str | PathLike[str] | Sequence[tuple[PathOrArray, PathOrArray]]


class FewShotSegment(Transform):
    """Adapt once, when built; then ``(C, *S)`` image -> ``(1, *S)`` int32 MetaTensor of the supports' label values.

    Args:
        support: labelled scans as in :func:`medfewshot.adapt`: a folder, or (image, label) pairs of paths, arrays or
            MetaTensors.
        segmenter: what :func:`medfewshot.adapt` returned, or the folder it was saved in, in place of a support.
        learner, steps, budget_seconds, seed, labels, device: as in :func:`medfewshot.adapt`.
        overlap, keep_largest: as in :class:`~medfewshot.integrations.FewShotInferer`.

    The affine, the metadata and the trace of earlier transforms are the image's, so that ``SaveImage`` writes the
    image's grid and ``Invertd`` leads back to the grid of the file. An image without an affine lies at 1 mm. Raises
    InputError for a support, setting or image that cannot be used, ValueError unless one of the two sources is given.
    """

    def __init__(
        self,
        support: SupportGiven | None = None,
        *,
        segmenter: VolumeSegmenter | str | PathLike[str] | None = None,
        learner: str = AUTO,
        steps: int | None = None,
        budget_seconds: float | None = 240.0,
        seed: int = 0,
        labels: Mapping[int, str] | Sequence[int | str] | None = None,
        device: str = "auto",
        overlap: float = 0.5,
        keep_largest: bool = True,
    ) -> None:
        if (support is None) == (segmenter is None):
            raise ValueError("give either a support or a segmenter")
        if support is not None:
            self.segmenter = adapt(
                support, learner=learner, steps=steps, budget_seconds=budget_seconds, seed=seed, labels=labels,
                device=device,
            )  # fmt: skip
        elif isinstance(segmenter, VolumeSegmenter):
            self.segmenter = segmenter
        else:
            self.segmenter = load_segmenter(Path(str(segmenter)), resolve_device(device))
        self.options = InferenceOptions(overlap=overlap, keep_largest=keep_largest)

    @property
    def plan(self) -> Plan:
        return self.segmenter.plan

    def __call__(self, img: Any) -> MetaTensor:
        return self.segment(img)["labels"]

    def segment(self, img: Any, *, probabilities: bool = False, uncertainty: bool = False) -> dict[str, MetaTensor]:
        """``labels (1, *S)``; on request ``probabilities (N + 1, *S)`` and ``uncertainty (1, *S)``, float32."""
        options = InferenceOptions(self.options.overlap, probabilities, uncertainty, self.options.keep_largest)
        done, flat = segment_tensor(img, self.plan, self.segmenter, options)
        return {name: _like(img, array, flat) for name, array in _arrays(done).items()}


class FewShotSegmentd(MapTransform):
    """Dictionary version of :class:`FewShotSegment`: images stay as they are, label maps come under keys of their own.

    Args:
        keys: of the images ``(C, *S)``.
        label_key: key of the label map, one for each of ``keys``.
        probabilities_key, uncertainty_key: where these maps are wanted too.
        others: as in :class:`FewShotSegment`.

    It leaves the image alone, so it is no ``InvertibleTransform``: inverting a pipeline passes over it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        support: SupportGiven | None = None,
        *,
        segmenter: VolumeSegmenter | str | PathLike[str] | None = None,
        learner: str = AUTO,
        steps: int | None = None,
        budget_seconds: float | None = 240.0,
        seed: int = 0,
        labels: Mapping[int, str] | Sequence[int | str] | None = None,
        device: str = "auto",
        overlap: float = 0.5,
        keep_largest: bool = True,
        label_key: str | Sequence[str] = "pred",
        probabilities_key: str | Sequence[str] | None = None,
        uncertainty_key: str | Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = {
            "labels": ensure_tuple_rep(label_key, len(self.keys)),
            "probabilities": ensure_tuple_rep(probabilities_key, len(self.keys)),
            "uncertainty": ensure_tuple_rep(uncertainty_key, len(self.keys)),
        }
        named = [key for keys in self.output_keys.values() for key in keys if key is not None]
        if len(set(named)) < len(named) or set(named) & set(self.keys):
            raise ValueError(f"keys of results must differ from each other and from {self.keys}: {named}")
        self.transform = FewShotSegment(
            support, segmenter=segmenter, learner=learner, steps=steps, budget_seconds=budget_seconds, seed=seed,
            labels=labels, device=device, overlap=overlap, keep_largest=keep_largest,
        )  # fmt: skip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        rows = self.key_iterator(result, *self.output_keys.values())
        for key, label_key, probabilities_key, uncertainty_key in rows:
            maps = self.transform.segment(
                result[key], probabilities=probabilities_key is not None, uncertainty=uncertainty_key is not None
            )
            wanted = {"labels": label_key, "probabilities": probabilities_key, "uncertainty": uncertainty_key}
            result |= {wanted[name]: value for name, value in maps.items()}
        return result


def _arrays(done: Segmentation) -> dict[str, np.ndarray]:
    arrays = {"labels": done.labels[None].astype(np.int32)}
    if done.probabilities is not None:
        arrays["probabilities"] = done.probabilities.astype(np.float32)
    if done.uncertainty is not None:
        arrays["uncertainty"] = done.uncertainty[None]
    return arrays


def _like(image: Any, array: np.ndarray, flat: bool) -> MetaTensor:
    """``array`` with the geometry and history of ``image``, on its device."""
    values: Tensor = torch.from_numpy(array[..., None] if flat else array)
    if isinstance(image, Tensor):
        values = values.to(image.device)
    if not isinstance(image, MetaTensor):
        return MetaTensor(values)
    meta = copy.deepcopy(image.meta)  # the affine among it
    return MetaTensor(values, meta=meta, applied_operations=copy.deepcopy(image.applied_operations))
