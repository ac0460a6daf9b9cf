# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Bring the slicing axis last, and slices into the radiologist's view, or leave them as they are stored."""

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

from monai_medpruner.data.volume_meta import PerVolumeList, append_note, collatable, positions_from_affine
from monai_medpruner.errors import SettingsError, SliceGeometryError, SpacingError, VolumeShapeError
from monai_medpruner.transforms.each_key import EachKeyd

__all__ = ["SlicePlane", "SlicePlaneD", "SlicePlaneDict", "SlicePlaned"]

# (rows, columns, depth) run toward these; the patient's right is on the left of an axial or coronal image
_AXIS_CODES = {"sagittal": "IPL", "coronal": "ILP", "axial": "PLS"}
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
_ENDS = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
_PLANES = tuple(_AXIS_CODES)  # in the order of the world axis that slices are stacked along: left-right, …, up-down
_ORIENTATIONS = ("radiological", "as_stored")
_ORDERS = ("position", "instance_number")
_OTHER_RUN = {"rising": "falling", "falling": "rising", "mixed": "mixed"}
_FOLLOWING_KEYS = ("plane", "slice_axis", "slice_order", "instance_order", "slice_positions_mm", "pixdim")
_SPACING_TOLERANCE = 1e-3  # relative; headers store float32


class SlicePlane(InvertibleTransform):
    """Orient a volume so that slices lie along the last axis and each slice looks as radiologists view it.

    Rows run downwards (toward posterior in axial slices, inferior in others), columns toward the patient's left
    (posterior in sagittal slices). Axes are permuted and flipped, never resampled; an oblique volume goes to the
    nearest plane. ``meta["plane"]`` names the plane, ``meta["slice_order"]`` says from where to where slices run;
    ``slice_axis``, ``instance_order`` and ``slice_positions_mm`` follow.

    Without an affine (array, plain tensor) the axes are taken for right, anterior, superior with equal spacing, as
    ``monai.transforms.Orientation`` does. Not lazy: metadata of the slices depends on the outcome.

    Args:
        plane: "axial", "coronal", "sagittal", or "acquired": the plane of ``meta["slice_axis"]`` where the reader set
            it, else slices along the axis of the largest spacing, axial where axial is among the largest.
        orientation: "radiological", as above; or "as_stored": slices are ``[:, :, k]`` of the array in a NIfTI file, as
            Hulu-Med's own loader takes them, with rows along the first axis, and the images as they are in files of
            other formats. "acquired" then is the third axis; the slices of a plane that is named lie across the axis
            nearest to it, with the other two axes in their order.
        slice_order: "position", as above: axial slices run from inferior to superior, coronal ones from anterior to
            posterior, sagittal ones from right to left; or "instance_number": with rising InstanceNumber, as Google's
            CT notebook for MedGemma 1.5 sorts them. Slices without such numbers, or of another plane than the acquired
            one, run by position, which is noted.

    Raises:
        SettingsError: an argument is not as described, or slices were selected before.
        VolumeShapeError: not ``(C, H, W, D)``.
        SliceGeometryError: another plane than the acquired one was asked for slices with uneven gaps or gantry tilt,
            which form no grid across slices; or the instance numbers, which are to be followed, neither rise nor fall
            from each slice to the next.
        SpacingError: the affine does not name three axes.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(
        self, plane: str = "acquired", orientation: str = "radiological", slice_order: str = "position"
    ) -> None:
        if plane not in ("acquired", *_PLANES):
            raise SettingsError(f"plane must be 'acquired', 'axial', 'coronal' or 'sagittal', got {plane!r}.")
        if orientation not in _ORIENTATIONS:
            raise SettingsError(f"orientation must be 'radiological' or 'as_stored', got {orientation!r}.")
        if slice_order not in _ORDERS:
            raise SettingsError(f"slice_order must be 'position' or 'instance_number', got {slice_order!r}.")
        self.plane = plane
        self.orientation = orientation
        self.slice_order = slice_order

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
        sliced = 2 if self.orientation == "as_stored" else acquired
        plane = _PLANES[int(world_axes[sliced, 0])] if self.plane == "acquired" else self.plane
        depth_axis = int(np.flatnonzero(world_axes[:, 0] == _PLANES.index(plane))[0])
        if depth_axis != acquired:
            _require_grid(image.meta, plane)
        run = image.meta.get("instance_order") if depth_axis == acquired else None
        codes = self._codes(image, plane, depth_axis, run)
        if not get_track_meta():
            return Orientation(axcodes=codes, labels=_labels(image))(image)
        out = self._orient(image, codes)
        flipped = float(image.affine[:3, depth_axis] @ out.affine[:3, 2]) < 0
        out.meta["plane"] = plane
        out.meta["slice_order"] = f"{_ENDS[_OPPOSITE[codes[2]]]} to {_ENDS[codes[2]]}"
        out.meta.pop("instance_order", None)
        if run is not None:
            out.meta["instance_order"] = _OTHER_RUN[run] if flipped else run
        elif self.slice_order == "instance_number":
            append_note(out.meta, f"no instance numbers to follow: slices run from {out.meta['slice_order']}")
        if "slice_axis" in image.meta:
            out.meta["slice_axis"] = int(np.flatnonzero(_world_axes(out)[:, 0] == world_axes[acquired, 0])[0])
        positions = image.meta.get("slice_positions_mm")
        if positions is None or depth_axis != acquired:
            out.meta["slice_positions_mm"] = positions_from_affine(out.affine, 2, out.shape[-1])
        else:
            out.meta["slice_positions_mm"] = PerVolumeList(positions[::-1] if flipped else positions)
        return out

    def _codes(self, image: MetaTensor, plane: str, depth_axis: int, run: str | None) -> str:
        """Where rows, columns and slices are to run to.

        Args:
            image: the volume.
            plane: of its slices.
            depth_axis: array axis along which these slices lie.
            run: how their instance numbers change; None without such numbers.
        """
        stored = nib.orientations.aff2axcodes(image.affine.numpy(), labels=_labels(image))
        codes = _AXIS_CODES[plane]
        if self.orientation == "as_stored":
            within = [axis for axis in range(3) if axis != depth_axis]
            # readers of the other formats return columns, rows, slices
            if depth_axis == 2 and image.meta.get("source", "NIfTI") != "NIfTI":
                within.reverse()
            codes = "".join(stored[axis] for axis in (*within, depth_axis))
        if self.slice_order == "position" or run is None:
            return codes
        if run == "mixed":
            raise SliceGeometryError(
                "the instance numbers of the series neither rise nor fall from each slice to the next, so slices "
                "cannot run by them: use slice_order='position'."
            )
        rising = (run == "rising") == (codes[2] == stored[depth_axis])
        return codes if rising else codes[:2] + _OPPOSITE[codes[2]]

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
        orientation: see :class:`SlicePlane`.
        slice_order: see :class:`SlicePlane`.
    """

    array_form: SlicePlane
    backend = SlicePlane.backend

    def __init__(
        self,
        keys: KeysCollection,
        plane: str = "acquired",
        allow_missing_keys: bool = False,
        orientation: str = "radiological",
        slice_order: str = "position",
    ) -> None:
        super().__init__(keys, SlicePlane(plane, orientation, slice_order), allow_missing_keys)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the orientation of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.array_form.inverse(d[key])
        return d


SlicePlaneD = SlicePlaneDict = SlicePlaned
