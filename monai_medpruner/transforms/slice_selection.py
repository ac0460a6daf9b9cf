# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep some slices of a volume, with metadata that stays true, and give the full depth back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from math import nan
from typing import Any

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform
from monai.utils import TraceKeys, TransformBackends, convert_to_tensor

from monai_medpruner.data.volume_meta import PerVolumeList, append_note, collatable, positions_from_affine
from monai_medpruner.errors import SettingsError, SliceGeometryError, VolumeShapeError
from monai_medpruner.transforms.each_key import ReferenceKeyd
from monai_medpruner.transforms.slice_rules.base import SliceChoice

__all__ = ["SliceSelection", "SliceSelectiond"]

_SOURCE_KEYS = ("source_depth", "source_affine", "source_positions_mm", "range_depth")
_OWN_KEYS = ("kept_indices", "slice_positions_mm", "slice_distances", "slice_rules", "nonuniform")
_FOLLOWING_KEYS = (*_OWN_KEYS, "pixdim", *_SOURCE_KEYS)


class SliceSelection(InvertibleTransform):
    """Base of the transforms that keep some slices of a channel-first volume; subclasses say which ones.

    The affine's origin moves to the first kept slice; the spacing along the axis is scaled where the kept indices are
    evenly spaced, and left alone where they are not (``meta["nonuniform"]`` is then true). ``meta["kept_indices"]`` is
    in the numbering of the source volume, that is the volume before the first selection, also after several ones.
    ``meta["source_depth"]``, ``meta["source_affine"]`` (4 x 4, nested lists) and ``meta["source_positions_mm"]``
    (all slices) are the source volume's own. ``meta["slice_positions_mm"]`` are the positions of the kept slices.

    Not lazy: what is kept may depend on the voxels.

    Args:
        spatial_dim: slice axis among the spatial axes, channel excluded; negative values count from the last.

    Raises:
        SettingsError: ``spatial_dim`` is not an integer, or no spatial axis of the volume.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, spatial_dim: int = -1) -> None:
        if isinstance(spatial_dim, bool) or not isinstance(spatial_dim, int):
            raise SettingsError(f"spatial_dim must be an integer, got {spatial_dim!r}.")
        self.spatial_dim = spatial_dim

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices to keep, ascending and at least one.

        Args:
            image: channel-first volume, ``(C, H, W, D)`` with the default ``spatial_dim``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement kept_slices.")

    def slice_axis(self, image: NdarrayOrTensor) -> int:
        """Return the axis of ``image`` (channel counted) along which slices lie; refuse volumes without voxels."""
        spatial = image.ndim - 1
        if spatial < 1 or 0 in image.shape:
            raise VolumeShapeError(f"expected a channel-first volume with voxels, got shape {tuple(image.shape)}.")
        if not -spatial <= self.spatial_dim < spatial:
            raise SettingsError(
                f"spatial_dim={self.spatial_dim} is no spatial axis of a volume of shape {tuple(image.shape)}: "
                f"choose from {-spatial} to {spatial - 1} (the channel axis is not counted)."
            )
        return 1 + self.spatial_dim % spatial

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Keep the slices that :meth:`kept_slices` names.

        Args:
            img: channel-first volume, any dtype.

        Returns:
            The kept slices, dtype unchanged; a MetaTensor unless metadata tracking is off.
        """
        image = convert_to_tensor(img, track_meta=get_track_meta())
        return self.apply(image, self.choose(image), measured=True)

    def choose(self, image: NdarrayOrTensor) -> SliceChoice:
        """Return :meth:`kept_slices`, and the distance of every slice of ``image`` where the choice rests on one."""
        return SliceChoice(self.kept_slices(image))

    def apply(self, img: NdarrayOrTensor, choice: SliceChoice, measured: bool) -> torch.Tensor:
        """Keep the slices of a choice, with its notes.

        Args:
            img: channel-first volume, any dtype.
            choice: which slices to keep.
            measured: whether the distances of the choice are those of ``img``, and not of another volume.
        """
        out = self.select(img, choice.kept, choice.distances if measured else None)
        if isinstance(out, MetaTensor):
            for note in choice.notes:
                append_note(out.meta, note)
        return out

    def select(
        self, img: NdarrayOrTensor, kept: Sequence[int], distances: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Keep the slices ``kept`` of ``img``, e.g. of a label map, as chosen on another volume.

        Args:
            img: channel-first volume, any dtype.
            kept: indices to keep, ascending.
            distances: of every slice of ``img``, what the choice rests on; recorded in the metadata.
        """
        image = convert_to_tensor(img, track_meta=get_track_meta())
        axis = self.slice_axis(image)
        selected = _take(image.as_tensor() if isinstance(image, MetaTensor) else image, kept, axis)
        if not isinstance(image, MetaTensor):
            return selected
        out: MetaTensor = MetaTensor(selected).copy_meta_from(image)
        before = {key: deepcopy(image.meta[key]) for key in _FOLLOWING_KEYS if key in image.meta}
        out.meta = collatable({**image.meta, **deepcopy(before)})  # MONAI updates ``pixdim`` in place
        tracked = self.track_transform_meta(
            out,
            affine=_selection_affine(image.affine, kept, axis - 1),
            extra_info={"axis": axis, "kept": list(kept), "affine": image.affine.clone(), "meta": before},
            orig_size=tuple(image.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        tracked.meta.update(_selection_meta(image, kept, axis))
        if distances is not None:
            tracked.meta["slice_distances"] = _source_distances(image, distances)
        return out.copy_meta_from(tracked)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Give the full depth, the affine and the slice metadata of before back; dropped slices are zero.

        Args:
            data: MetaTensor with as many slices as were kept and any number of channels, e.g. a segmentation of them.
        """
        transform = self.pop_transform(data)
        info = transform[TraceKeys.EXTRA_INFO]
        axis, kept, size = info["axis"], info["kept"], transform[TraceKeys.ORIG_SIZE]
        if data.shape[axis] != len(kept):
            raise VolumeShapeError(
                f"cannot invert: {len(kept)} slices were kept, the volume has {data.shape[axis]}; undo padding and "
                "cropping first."
            )
        image = data.as_tensor() if isinstance(data, MetaTensor) else data
        restored = self.fill(image, kept, int(size[axis - 1]), axis)
        if not isinstance(data, MetaTensor):
            return restored
        out: MetaTensor = MetaTensor(restored).copy_meta_from(data)
        for key in _FOLLOWING_KEYS:
            out.meta.pop(key, None)
        out.meta.update(deepcopy(info["meta"]))
        out.affine = info["affine"]
        return out

    def fill(self, image: torch.Tensor, kept: Sequence[int], depth: int, axis: int) -> torch.Tensor:
        """Scatter the kept slices back to ``depth`` slices along ``axis``; the others are zero."""
        shape = list(image.shape)
        shape[axis] = depth
        return image.new_zeros(shape).index_copy(axis, torch.as_tensor(kept, device=image.device), image)


def fill_from_anchor(image: torch.Tensor, kept: Sequence[int], depth: int, axis: int) -> torch.Tensor:
    """Return ``depth`` slices along ``axis``: each dropped slice is a copy of the last kept slice before it."""
    source = [max(bisect_right(kept, index) - 1, 0) for index in range(depth)]
    return _gather(image, source, axis)


def _take(image: torch.Tensor, kept: Sequence[int], axis: int) -> torch.Tensor:
    """Slices ``kept`` of ``image``; a view where they are consecutive, so that keeping all costs no memory."""
    if kept[-1] - kept[0] + 1 == len(kept):
        return image.narrow(axis, kept[0], len(kept))
    return _gather(image, kept, axis)


def _gather(image: torch.Tensor, indices: Sequence[int], axis: int) -> torch.Tensor:
    """``image.index_select`` along ``axis`` in the memory order of ``image``; index_select alone makes it C order."""
    strides = image.stride()
    order = sorted(range(image.ndim), key=lambda dim: -strides[dim])
    gathered = image.permute(order).index_select(order.index(axis), torch.as_tensor(indices, device=image.device))
    return gathered.permute([order.index(dim) for dim in range(image.ndim)])


def _even_step(kept: Sequence[int]) -> int | None:
    """The constant step between kept indices (1 for a single slice), None where there is none."""
    steps = {later - earlier for earlier, later in pairwise(kept)} or {1}
    return steps.pop() if len(steps) == 1 else None


def _selection_affine(affine: torch.Tensor, kept: Sequence[int], spatial_axis: int) -> torch.Tensor:
    """Map voxel indices of the selection to those of the source; exact where the kept indices are evenly spaced."""
    mapping = torch.eye(affine.shape[-1], dtype=torch.float64)
    if spatial_axis < affine.shape[-1] - 1:
        mapping[spatial_axis, spatial_axis] = _even_step(kept) or 1
        mapping[spatial_axis, -1] = kept[0]
    return mapping


def _selection_meta(image: MetaTensor, kept: Sequence[int], axis: int) -> dict[str, Any]:
    """Metadata of the slices ``kept`` of ``image``, in the numbering of the source volume."""
    meta, depth = image.meta, image.shape[axis]
    numbering = meta.get("kept_indices", range(depth))
    positions = meta.get("slice_positions_mm")
    if positions is None and axis < image.affine.shape[-1]:
        positions = positions_from_affine(image.affine, axis - 1, depth)
    for name, values in (("kept_indices", numbering), ("slice_positions_mm", positions)):
        if values is not None and len(values) != depth:
            raise SliceGeometryError(
                f"meta['{name}'] describes {len(values)} slices, the volume has {depth} along this axis: "
                "it was cropped or padded after that was recorded, or slices were selected along another axis."
            )
    selected: dict[str, Any] = {
        "kept_indices": PerVolumeList(int(numbering[index]) for index in kept),
        "nonuniform": bool(meta.get("nonuniform", False)) or _even_step(kept) is None,
    }
    if positions is not None:
        selected["slice_positions_mm"] = PerVolumeList(float(positions[index]) for index in kept)
    if "kept_indices" not in meta:  # the first selection: the volume is the source
        selected["source_depth"] = depth
        selected["source_affine"] = PerVolumeList(image.affine.tolist())
        if positions is not None:
            selected["source_positions_mm"] = PerVolumeList(map(float, positions))
    return selected


def _source_distances(image: MetaTensor, distances: Sequence[float]) -> PerVolumeList:
    """Distances of the slices of ``image`` in the numbering of the source volume; NaN for slices that are not in it."""
    depth = int(image.meta.get("source_depth", len(distances)))
    placed = PerVolumeList([nan] * depth)
    for index, distance in zip(image.meta.get("kept_indices", range(depth)), distances, strict=True):
        placed[int(index)] = distance
    return placed


class SliceSelectiond(ReferenceKeyd):
    """Base of the dictionary forms: the slices are chosen on one key, and every key keeps the same ones.

    Args:
        keys: volumes of equal depth, e.g. image and label.
        array_form: makes the choice, and selects.
        ref_key: key on which slices are chosen; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys; the reference key may be absent only where all are.

    Raises:
        SettingsError: ``ref_key`` is not one of ``keys``.
        VolumeShapeError: a volume's depth differs from the reference's.
    """

    array_form: SliceSelection
    backend = SliceSelection.backend

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Keep the slices chosen on ``data[ref_key]`` in every key."""
        d = dict(data)
        present = self.present_keys(d)
        if not present:
            return d
        reference = convert_to_tensor(d[self.ref_key], track_meta=get_track_meta())
        choice = self.array_form.choose(reference)
        depth = reference.shape[self.array_form.slice_axis(reference)]
        for key in present:
            found = d[key].shape[self.array_form.slice_axis(d[key])]
            if found != depth:
                raise VolumeShapeError(f"{key!r} has {found} slices, the reference {self.ref_key!r} has {depth}.")
            is_reference = key == self.ref_key
            d[key] = self.array_form.apply(reference if is_reference else d[key], choice, measured=is_reference)
        return d
