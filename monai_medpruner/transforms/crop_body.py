# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Crop the kept slices to the patient's body, so that air and table never reach the encoder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from math import ceil, isfinite
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import CropForeground
from monai.utils import TraceKeys, convert_to_tensor

from monai_medpruner.data.volume_meta import PerVolumeList, collatable, positions_from_affine
from monai_medpruner.errors import SettingsError, VolumeShapeError
from monai_medpruner.transforms.each_key import ReferenceKeyd
from monai_medpruner.transforms.find_body import check_crop, plane_grid

__all__ = ["CropBody", "CropBodyD", "CropBodyDict", "CropBodyd"]

_OWN_KEYS = ("crop", "uncropped_size")
_FOLLOWING_KEYS = (
    *("body_extents", "body_grid", "pixdim"),
    *("kept_indices", "source_depth", "source_affine", "source_positions_mm", "slice_positions_mm"),
)
_SAME_GRID = 1e-4  # mm, between axes of two affines


class CropBody(CropForeground):
    """Crop every slice to one box: the smallest that holds the body in all kept slices, and a margin.

    :class:`~.find_body.FindBody` recorded where the body lies. This transform runs last, after slices were selected, so
    that γ means the same with it and without it. The box never leaves the slice. ``meta["crop"]`` becomes
    ``[[first row, last row plus one], [first column, last column plus one]]``, and ``meta["uncropped_size"]`` rows and
    columns of the whole slice, where the box is smaller than that. The affine follows; the positions of slices, and
    ``meta["source_affine"]`` with its companions, stay those of the whole volume.

    Not lazy: other metadata depend on the outcome.

    Args:
        crop: "body", or "body_patches", which crops alike; or None to do nothing.
        margin_mm: added on each side of the body, whose edges lie on a grid of about 4 mm, outside the skin.
        square: widen the shorter side of the box to the longer one, as far as the slice allows, for encoders that
            resize every image to a square.

    Raises:
        SettingsError: ``crop`` or ``margin_mm`` is not as described, or, when called, no FindBody ran before.
        VolumeShapeError: rows and columns are not those that FindBody saw: the volume was turned, resampled or cropped
            since.
    """

    def __init__(self, crop: str | None = "body", margin_mm: float = 4.0, square: bool = False) -> None:
        super().__init__(allow_smaller=True)
        check_crop(crop)
        if not (isinstance(margin_mm, int | float) and isfinite(margin_mm) and margin_mm >= 0):
            raise SettingsError(f"margin_mm must be a number of millimeters of at least 0, got {margin_mm!r}.")
        self.crop = crop
        self.margin_mm = margin_mm
        self.square = square

    def __call__(self, img: torch.Tensor, lazy: bool | None = None) -> torch.Tensor:  # type: ignore[override]
        """Crop ``img``.

        Args:
            img: ``(C, H, W, D)``, slices along the last axis; a MetaTensor that went through FindBody.
            lazy: what ``Compose`` hands to every cropping transform; the crop is done at once in any case.

        Returns:
            The box of every slice, a view of ``img``; ``img`` itself with ``crop=None`` or without metadata tracking.
        """
        if self.crop is None or not get_track_meta():
            return img
        return self.cut(img, *self.compute_bounding_box(img))

    def compute_bounding_box(self, img: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return first and last-plus-one voxel of the box, int64 ``(3,)`` each: rows, columns, slices."""
        if not isinstance(img, MetaTensor) or "body_extents" not in img.meta:
            raise SettingsError("nothing tells where the body lies: put FindBody before the windows.")
        found, seen = plane_grid(img), img.meta["body_grid"]
        if found[:2] != list(seen[:2]) or not np.allclose(found, seen, rtol=0, atol=_SAME_GRID):
            raise VolumeShapeError(
                f"rows and columns are not those in which the body was found: {found[:2]} voxels now, {seen[:2]} then, "
                "or turned or resampled since. Choose the plane first, and put FindBody right after it."
            )
        extents = np.asarray(img.meta["body_extents"], dtype=np.int64)
        extents = extents[np.asarray(img.meta.get("kept_indices", range(len(extents))))]
        extents = extents[extents[:, 1] > 0]
        size = np.asarray(img.shape[1:], dtype=np.int64)
        start, end = np.zeros(3, dtype=np.int64), size.copy()
        if len(extents):
            spacing = torch.linalg.vector_norm(img.affine[:3, :2], dim=0).tolist()
            margin = np.asarray([ceil(self.margin_mm / one) for one in spacing])
            start[:2] = (extents[:, [0, 2]].min(0) - margin).clip(min=0)
            end[:2] = np.minimum(extents[:, [1, 3]].max(0) + margin, size[:2])
        return _squared(start, end, size) if self.square else (start, end)

    def cut(self, img: torch.Tensor, start: np.ndarray, end: np.ndarray) -> torch.Tensor:
        """Crop a volume, e.g. a label map, to a box that was found on another one of the same size.

        Args:
            img: ``(C, H, W, D)``.
            start: first voxel of the box: rows, columns, slices.
            end: last voxel plus one.
        """
        image: MetaTensor = convert_to_tensor(img, track_meta=True)
        before = {key: deepcopy(image.meta[key]) for key in _FOLLOWING_KEYS if key in image.meta}
        source: MetaTensor = MetaTensor(image.as_tensor()).copy_meta_from(image)
        source.meta = collatable({**image.meta, **deepcopy(before)})  # MONAI updates ``pixdim`` in place
        out: MetaTensor = self.crop_pad(source, start, end)  # type: ignore[assignment]
        info = out.applied_operations[-1][TraceKeys.EXTRA_INFO]
        info.update({"affine": image.affine.clone(), "meta": before})
        for key in ("body_extents", "body_grid"):
            out.meta.pop(key, None)
        if "kept_indices" not in image.meta:
            out.meta.update(source_meta(image))
        if out.shape != image.shape:
            out.meta["crop"] = PerVolumeList([int(start[axis]), int(end[axis])] for axis in (0, 1))
            out.meta["uncropped_size"] = PerVolumeList(image.shape[1:3])
        return out

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Give rows, columns, affine and metadata of before back; what lay outside the box is 0.

        Args:
            data: MetaTensor of the box's size with any number of channels, e.g. a segmentation.
        """
        if self.crop is None:
            return data
        transform = self.get_most_recent_transform(data)
        info, size = transform[TraceKeys.EXTRA_INFO], transform[TraceKeys.ORIG_SIZE]
        cut = np.asarray(info["cropped"]).reshape(-1, 2).sum(1)
        expected = tuple(int(whole - lost) for whole, lost in zip(size, cut, strict=True))
        if tuple(data.shape[1:]) != expected:
            raise VolumeShapeError(
                f"cannot invert: the box had {expected} voxels, the volume has {tuple(data.shape[1:])}; undo other "
                "transforms first."
            )
        out = super().inverse(data)
        for key in (*_FOLLOWING_KEYS, *_OWN_KEYS):
            out.meta.pop(key, None)
        out.meta.update(deepcopy(info["meta"]))
        out.affine = info["affine"]
        return out


def source_meta(image: MetaTensor) -> dict[str, Any]:
    """What the first selection of slices would record: the volume before it was cropped is the source."""
    depth = image.shape[-1]
    positions = image.meta.get("slice_positions_mm", positions_from_affine(image.affine, 2, depth))
    return {
        "kept_indices": PerVolumeList(range(depth)),
        "source_depth": depth,
        "source_affine": PerVolumeList(image.affine.tolist()),
        "source_positions_mm": PerVolumeList(map(float, positions)),
        "slice_positions_mm": PerVolumeList(map(float, positions)),
    }


def _squared(start: np.ndarray, end: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widen the shorter of the first two sides to the longer one around its middle, inside the slice."""
    start, end = start.copy(), end.copy()
    side = (end - start)[:2].max()
    for axis in (0, 1):
        length = min(side, size[axis])
        low = start[axis] - (length - (end[axis] - start[axis])) // 2
        start[axis] = min(max(low, 0), size[axis] - length)
        end[axis] = start[axis] + length
    return start, end


class CropBodyd(ReferenceKeyd):
    """Dictionary-based wrapper of :class:`CropBody`: the box is that of one key, and every key is cropped to it.

    Args:
        keys: volumes of equal size, e.g. image and label.
        crop: see :class:`CropBody`.
        margin_mm: see :class:`CropBody`.
        square: see :class:`CropBody`.
        ref_key: key on which FindBody ran; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys; the reference key may be absent only where all are.

    Raises:
        SettingsError: ``ref_key`` is not one of ``keys``.
        VolumeShapeError: a volume's size differs from the reference's.
    """

    array_form: CropBody
    backend = CropBody.backend

    def __init__(
        self,
        keys: KeysCollection,
        crop: str | None = "body",
        margin_mm: float = 4.0,
        square: bool = False,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, CropBody(crop, margin_mm, square), ref_key, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop every key to the box of ``data[ref_key]``."""
        d = dict(data)
        present = self.present_keys(d)
        if not present or self.array_form.crop is None or not get_track_meta():
            return d
        reference = d[self.ref_key]
        box = self.array_form.compute_bounding_box(reference)
        for key in present:
            if d[key].shape[1:] != reference.shape[1:]:
                raise VolumeShapeError(
                    f"{key!r} has the size {tuple(d[key].shape[1:])}, the reference {self.ref_key!r} "
                    f"{tuple(reference.shape[1:])}."
                )
            d[key] = self.array_form.cut(d[key], *box)
        return d


CropBodyD = CropBodyDict = CropBodyd
