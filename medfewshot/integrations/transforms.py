"""Few-shot segmentation as a MONAI transform: it turns an image into a label map on the same grid."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple_rep

from medfewshot.api import get_segmenter
from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError
from medfewshot.integrations.inferer import segment_tensor, volume_of
from medfewshot.io import Film
from medfewshot.settings import InferenceSettings, SegmentSettings
from medfewshot.types import Plan
from medfewshot.workflow import SupportSource, segment_film


class FewShotSegment(Transform):
    """Adapts once when it is built; then segments images ``(C, *S)`` into label maps ``(1, *S)``.

    Label maps are int32 MetaTensors with the supports' label values. They take the affine, the metadata and the trace
    of earlier transforms from the image, so ``SaveImage`` writes the image's grid and ``Invertd`` returns to the grid
    of the file. An image without an affine is taken voxel for voxel. Warnings and flags of :func:`medfewshot.segment`
    become Python warnings.

    Args:
        support: Labelled scans as in :func:`medfewshot.adapt`: a folder, or (image, label) pairs of paths, arrays or
            MetaTensors.
        segmenter: What :func:`medfewshot.adapt` returned, or the folder of a saved one, instead of a support.
        device: Device for computation.
        frames: Whether images are films ``(frames, *S)``, as MONAI reads 4D files. They become label maps of this
            shape, as from :func:`medfewshot.segment_film`.
        settings: Single settings of :class:`~medfewshot.settings.InferenceSettings` (``overlap``, ``keep_largest``),
            and for a support those of :class:`~medfewshot.settings.AdaptSettings`.

    Raises:
        InputError: The support, a setting or an image cannot be used.
        TypeError: Settings of the adaptation are given for a segmenter that is adapted already.
        ValueError: Both or none of ``support`` and ``segmenter`` are given.
    """

    def __init__(
        self,
        support: SupportSource | None = None,
        *,
        segmenter: VolumeSegmenter | str | PathLike[str] | None = None,
        device: str = "auto",
        frames: bool = False,
        **settings: Any,
    ) -> None:
        given = support if segmenter is None else segmenter
        if given is None or (support is not None and segmenter is not None):
            raise ValueError("give either a support or a segmenter")
        own = {name: settings.pop(name) for name in ("overlap", "keep_largest") if name in settings}
        self.settings, self.frames = InferenceSettings(**own), frames
        self.segmenter = get_segmenter(given, device=device, **settings)

    @property
    def plan(self) -> Plan:
        """The plan of the segmenter."""
        return self.segmenter.plan

    def __call__(self, img: Any) -> MetaTensor:
        """Segment an image ``(C, *S)``; labels ``(1, *S)`` on the same grid."""
        return self.segment(img)["labels"]

    def segment(self, img: Any, *, probabilities: bool = False, uncertainty: bool = False) -> dict[str, MetaTensor]:
        """Segment an image ``(C, *S)``.

        Args:
            img: The image.
            probabilities: Whether to return class probabilities.
            uncertainty: Whether to return the uncertainty map.

        Returns:
            ``labels (1, *S)`` int32; if requested, ``probabilities (N + 1, *S)`` and ``uncertainty (1, *S)``, float32.

        Raises:
            ValueError: Probabilities or the uncertainty map of a film are requested.
        """
        if self.frames:
            if probabilities or uncertainty:
                raise ValueError("films have label maps only, no probabilities and no uncertainty map")
            return {"labels": _like(img, self._segment_film(img))}
        settings = self.settings.replace(probabilities=probabilities, uncertainty=uncertainty)
        arrays = segment_tensor(img, self.plan, self.segmenter, settings)
        return {name: _like(img, array) for name, array in arrays.items()}

    def _segment_film(self, img: Any) -> np.ndarray:
        if self.plan.channels != 1:
            raise InputError(f"a film of {self.plan.channels} channels", "give its file to medfewshot.segment_film")
        volume = volume_of(img)
        first = replace(volume, data=volume.data[:1], path=volume.path or Path("film"), frame=0)
        film = Film(first, len(volume.data), lambda numbers: (volume.data[number, None] for number in numbers))
        settings = SegmentSettings(**dict(self.settings), report=False)
        done = segment_film(film, self.segmenter, settings)
        for text in done.segmentation.warnings:
            warnings.warn(f"{first.path}: {text}", stacklevel=2)
        return done.labels.astype(np.int32)


class FewShotSegmentd(MapTransform):
    """Dictionary version of :class:`FewShotSegment`: images stay as they are, label maps get keys of their own.

    It is no ``InvertibleTransform``, because the image does not change.

    Args:
        keys: Keys of the images ``(C, *S)``.
        support: As in :class:`FewShotSegment`.
        label_key: Key of the label map, one for each of ``keys``.
        probabilities_key: Key of the class probabilities, if wanted.
        uncertainty_key: Key of the uncertainty map, if wanted.
        allow_missing_keys: As in MONAI.
        others: ``segmenter``, ``device``, ``frames`` and settings, as in :class:`FewShotSegment`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        support: SupportSource | None = None,
        *,
        label_key: str | Sequence[str] = "pred",
        probabilities_key: str | Sequence[str] | None = None,
        uncertainty_key: str | Sequence[str] | None = None,
        allow_missing_keys: bool = False,
        **others: Any,
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
        self.transform = FewShotSegment(support, **others)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Segment the images under ``keys`` and add the results under the output keys."""
        result = dict(data)
        rows = self.key_iterator(result, *self.output_keys.values())
        for key, label_key, probabilities_key, uncertainty_key in rows:
            maps = self.transform.segment(
                result[key], probabilities=probabilities_key is not None, uncertainty=uncertainty_key is not None
            )
            wanted = {"labels": label_key, "probabilities": probabilities_key, "uncertainty": uncertainty_key}
            result |= {wanted[name]: value for name, value in maps.items()}
        return result


def _like(image: Any, array: np.ndarray) -> MetaTensor:
    """Return ``array`` with the geometry and history of ``image``, on its device."""
    values = MetaTensor(torch.from_numpy(array))
    if isinstance(image, MetaTensor):
        values.meta, values.applied_operations = copy.deepcopy((image.meta, image.applied_operations))
    return values.to(image.device) if isinstance(image, torch.Tensor) else values
