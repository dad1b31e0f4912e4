"""Resample to the plan's grid and back, as an invertible MONAI transform for training pipelines.

Inference does not need it, because it restores slab by slab in bounded memory. ``Invertd`` keeps every class on the
original grid at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, TransformBackends, ensure_tuple_rep

from medfewshot.api import as_volume
from medfewshot.planning import AxisMap, labels_to_plan, plan_from_dict, sample_axis, to_original, to_plan
from medfewshot.types import Plan


class ToPlan(InvertibleTransform):
    """Bring an image or its labels to the plan's grid, and back.

    An image ``(C, *S)`` becomes ``(C, *P)`` float32, normalised. With ``label=True`` label values ``(1, *S)`` become
    classes ``(1, *P)`` int64, 0..N in the plan's order.

    The inverse brings any ``(K, *P)`` tensor (logits, probabilities, classes) back to the original grid. It
    interpolates linearly along each axis, or takes the nearest voxel if the tensor contains integers or the mode is
    nearest, as ``Invertd`` makes it by default. Intensities stay normalised and classes stay 0..N. A plain tensor has
    voxels of 1 mm; a warning says so if the plan has others.

    Raises:
        InputError: The image does not fit the plan.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012  (MONAI's own way to say it)

    def __init__(self, plan: Plan | Mapping[str, Any], label: bool = False) -> None:
        self.plan = plan if isinstance(plan, Plan) else plan_from_dict(plan)
        self.label = label

    def __call__(self, img: Any) -> MetaTensor:
        """Resample ``(C, *S)`` to the plan's grid ``(C, *P)``."""
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        volume = as_volume(image, label=self.label)
        if image is not img and any(length != 1 for length in self.plan.spacing_mm):
            warnings.warn("array: has no affine: its voxels are taken as 1 mm; give a MetaTensor", stacklevel=2)
        data = volume.data.astype(np.float32)  # a label has one channel, the plan perhaps several
        grid = to_plan(replace(volume, data=data.repeat(self.plan.channels, 0) if self.label else data), self.plan)
        values = labels_to_plan(volume, self.plan)[None] if self.label else grid.image
        planned = MetaTensor(values, meta=image.meta, applied_operations=image.applied_operations)
        original = torch.as_tensor(np.asarray(image.affine), dtype=torch.float64)
        extra = {
            "mode": "nearest" if self.label else "bilinear",
            "axes": [(m.original_axis, m.step, m.offset) for m in grid.maps],
            "original_shape": grid.original_shape,
            "original_affine": original,
        }
        self.push_transform(planned, orig_size=volume.spatial_shape, extra_info=extra)
        from_ras = to_affine_nd(3, original.numpy()) @ np.linalg.inv(volume.affine)  # to LPS or metres, if in these
        planned.affine = torch.from_numpy(from_ras.round(6) @ grid.affine)
        return planned

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Resample ``(K, *P)`` to the original grid ``(K, *S)``."""
        applied = self.pop_transform(data)
        extra = applied[TraceKeys.EXTRA_INFO]
        maps = [AxisMap(int(axis), float(step), float(offset)) for axis, step, offset in extra["axes"]]
        values = data.as_tensor()
        nearest = not values.is_floating_point() or extra["mode"] == "nearest"
        values = to_original(values, maps, extra["original_shape"], _nearest if nearest else sample_axis)
        values = values.reshape(len(values), *applied[TraceKeys.ORIG_SIZE]).contiguous()
        restored = MetaTensor(values, meta=data.meta, applied_operations=data.applied_operations)
        restored.affine = extra["original_affine"]
        return restored


class ToPland(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`ToPlan`.

    Args:
        keys: Keys of the images and labels.
        plan: The plan, or its JSON data.
        label: Whether a key contains labels; one value, or one for each of ``keys``.
        allow_missing_keys: As in MONAI.
    """

    backend = ToPlan.backend

    def __init__(
        self,
        keys: KeysCollection,
        plan: Plan | Mapping[str, Any],
        label: bool | Sequence[bool] = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transforms = [ToPlan(plan, one) for one in ensure_tuple_rep(label, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the images and labels under ``keys`` to the plan's grid."""
        result = dict(data)
        for key, transform in self.key_iterator(result, self.transforms):
            result[key] = transform(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the tensors under ``keys`` back to the original grid."""
        result = dict(data)
        for key, transform in self.key_iterator(result, self.transforms):
            result[key] = transform.inverse(result[key])
        return result


def _nearest(values: torch.Tensor, coordinates: np.ndarray, axis: int) -> torch.Tensor:
    index = np.clip(np.rint(coordinates), 0, values.shape[axis] - 1).astype(np.int64)
    return values.index_select(axis, torch.from_numpy(index).to(values.device))
