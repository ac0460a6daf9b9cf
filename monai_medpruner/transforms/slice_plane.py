# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Bring the slicing axis last, and slices into the position in which radiologists view them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform, Orientation
from monai.utils import TraceKeys, TransformBackends, convert_to_tensor

from monai_medpruner.data.volume_meta import PerVolumeList, collatable, positions_from_affine
from monai_medpruner.errors import SettingsError, SliceGeometryError, SpacingError, VolumeShapeError
from monai_medpruner.transforms.each_key import EachKeyd

__all__ = ["SLICE_ORDERS", "SlicePlane", "SlicePlaneD", "SlicePlaneDict", "SlicePlaned"]

# (rows, columns, depth) run toward these; the patient's right is on the left of an axial or coronal image
_AXIS_CODES = {"sagittal": "IPL", "coronal": "ILP", "axial": "PLS"}
#: from where to where the slices of each plane run
SLICE_ORDERS = {"sagittal": "right to left", "coronal": "anterior to posterior", "axial": "inferior to superior"}
_PLANES = tuple(_AXIS_CODES)  # in the order of the world axis that slices are stacked along: left-right, …, up-down
_FOLLOWING_KEYS = ("plane", "slice_axis", "slice_positions_mm", "pixdim")
_SPACING_TOLERANCE = 1e-3  # relative; headers store float32


class SlicePlane(InvertibleTransform):
    """Orient a volume so that slices lie along the last axis and each slice looks as radiologists view it.

    Rows run downwards (toward posterior in axial slices, inferior in others), columns toward the patient's left
    (posterior in sagittal slices). Axes are permuted and flipped, never resampled; an oblique volume goes to the
    nearest plane. ``meta["plane"]`` names the plane, ``slice_axis`` and ``slice_positions_mm`` follow.

    Without an affine (array, plain tensor) the axes are taken for right, anterior, superior with equal spacing, as
    ``monai.transforms.Orientation`` does. Not lazy: metadata of the slices depends on the outcome.

    Args:
        plane: "axial", "coronal", "sagittal", or "acquired": the plane of ``meta["slice_axis"]`` where the reader set
            it, else slices along the axis of the largest spacing, axial where axial is among the largest.

    Raises:
        SettingsError: an unknown plane, or slices were selected before.
        VolumeShapeError: not ``(C, H, W, D)``.
        SliceGeometryError: another plane than the acquired one was asked for slices with uneven gaps or gantry tilt,
            which form no grid across slices.
        SpacingError: the affine does not name three axes.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, plane: str = "acquired") -> None:
        if plane not in ("acquired", *_PLANES):
            raise SettingsError(f"plane must be 'acquired', 'axial', 'coronal' or 'sagittal', got {plane!r}.")
        self.plane = plane

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Orient ``img``.

        Args:
            img: ``(C, H, W, D)``.

        Returns:
            The same voxels, slices along the last axis; a MetaTensor unless metadata tracking is off.
        """
        if img.ndim != 4:
            raise VolumeShapeError(f"expected a volume of shape (C, H, W, D), got shape {tuple(img.shape)}.")
        image: MetaTensor = img if isinstance(img, MetaTensor) else MetaTensor(convert_to_tensor(img, track_meta=False))
        if "kept_indices" in image.meta:
            raise SettingsError("slices were selected before: choose the plane first, then ranges and filters.")
        acquired = _acquired_axis(image)
        world_axes = _world_axes(image)
        plane = _PLANES[int(world_axes[acquired, 0])] if self.plane == "acquired" else self.plane
        depth_axis = int(np.flatnonzero(world_axes[:, 0] == _PLANES.index(plane))[0])
        if depth_axis != acquired:
            _require_grid(image.meta, plane)
        codes = _AXIS_CODES[plane]
        if not get_track_meta():
            return Orientation(axcodes=codes, labels=_labels(image))(image)
        out = self._orient(image, codes)
        flipped = float(image.affine[:3, depth_axis] @ out.affine[:3, 2]) < 0
        out.meta["plane"] = plane
        if "slice_axis" in image.meta:
            out.meta["slice_axis"] = int(np.flatnonzero(_world_axes(out)[:, 0] == world_axes[acquired, 0])[0])
        positions = image.meta.get("slice_positions_mm")
        if positions is None or depth_axis != acquired:
            out.meta["slice_positions_mm"] = positions_from_affine(out.affine, 2, out.shape[-1])
        else:
            out.meta["slice_positions_mm"] = PerVolumeList(positions[::-1] if flipped else positions)
        return out

    def _orient(self, image: MetaTensor, codes: str) -> MetaTensor:
        """Permute and flip to ``codes`` and record what :meth:`inverse` needs."""
        before = {key: deepcopy(image.meta[key]) for key in _FOLLOWING_KEYS if key in image.meta}
        source: MetaTensor = MetaTensor(image.as_tensor()).copy_meta_from(image)
        source.meta = collatable({**image.meta, **deepcopy(before)})  # MONAI updates ``pixdim`` in place
        orientation = Orientation(axcodes=codes, labels=_labels(image))
        with orientation.trace_transform(False):
            out = orientation(source)
        return self.push_transform(
            out,
            orig_size=tuple(image.shape[1:]),
            extra_info={"affine": image.affine.clone(), "meta": before},
        )

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Undo the orientation; affine and slice metadata are those of before.

        Args:
            data: MetaTensor as this transform returned it, with any number of channels.
        """
        info = self.pop_transform(data)[TraceKeys.EXTRA_INFO]
        labels = _labels(data)
        codes = "".join(nib.orientations.aff2axcodes(info["affine"], labels=labels))
        orientation = Orientation(axcodes=codes, labels=labels)
        with orientation.trace_transform(False):
            out: MetaTensor = orientation(data)  # type: ignore[assignment]
        for key in _FOLLOWING_KEYS:
            out.meta.pop(key, None)
        out.meta.update(deepcopy(info["meta"]))
        return out


def _labels(image: MetaTensor) -> tuple[tuple[str, str], ...] | None:
    """Names of the world axes' ends, as MONAI's Orientation takes them."""
    return (("R", "L"), ("A", "P"), ("I", "S")) if image.meta.get("space") == "LPS" else None


def _world_axes(image: MetaTensor) -> np.ndarray:
    """For each array axis the nearest world axis (0 left-right, 1 front-back, 2 up-down) and its direction."""
    axes = nib.io_orientation(image.affine.numpy())
    if np.isnan(axes).any():
        raise SpacingError("the affine does not name three different axes: run CheckVolume after loading.")
    return axes


def _acquired_axis(image: MetaTensor) -> int:
    """The array axis along which slices were acquired, else that of the largest spacing, axial first where equal."""
    if "slice_axis" in image.meta:
        return int(image.meta["slice_axis"])
    spacing = torch.linalg.vector_norm(image.affine[:3, :3], dim=0)
    largest = np.flatnonzero(spacing.numpy() >= float(spacing.max()) * (1 - _SPACING_TOLERANCE))
    world_axes = _world_axes(image)[:, 0]
    return int(max(largest, key=lambda axis: world_axes[axis]))


def _require_grid(meta: Mapping[str, Any], plane: str) -> None:
    tilt = float(meta.get("gantry_tilt_degrees", 0.0))
    if tilt or meta.get("nonuniform", False):
        found = f"a gantry tilt of {tilt:g} degrees" if tilt else "uneven gaps"
        raise SliceGeometryError(
            f"the {plane} plane was asked for, but the acquired slices have {found}: they form no grid across slices. "
            "Use the acquired plane, or resample to a regular grid first."
        )


class SlicePlaned(EachKeyd, InvertibleTransform):
    """Dictionary-based wrapper of :class:`SlicePlane`.

    Args:
        keys: volumes; each is oriented by its own affine.
        plane: see :class:`SlicePlane`.
        allow_missing_keys: skip absent keys.
    """

    array_form: SlicePlane
    backend = SlicePlane.backend

    def __init__(self, keys: KeysCollection, plane: str = "acquired", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, SlicePlane(plane), allow_missing_keys)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the orientation of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.array_form.inverse(d[key])
        return d


SlicePlaneD = SlicePlaneDict = SlicePlaned
