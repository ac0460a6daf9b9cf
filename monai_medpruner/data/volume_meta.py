# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keys that this package adds to ``MetaTensor.meta``, and helpers that maintain them.

``source``: "NIfTI", "DICOM", "npy" or "images" (a folder of PNG or JPEG). ``modality``: "CT", "MR", … (DICOM).
``slice_axis``: array axis (0 to 2, channel excluded) along which slices were acquired (DICOM). ``slice_positions_mm``:
position of each slice along that axis. ``instance_order``: "rising", "falling" or "mixed", how the instance numbers of
a DICOM series change along that axis. ``nonuniform``: slices are not spaced evenly. ``gantry_tilt_degrees``: present
for a tilted gantry. ``intensity``: "unit" or "uint8" where voxels were scaled to [0, 1] or 0 to 255 before they were
stored. ``kept_indices``: which slices are left, in the numbering of the source volume, that is before any selection.
``source_depth``, ``source_affine`` and ``source_positions_mm``: its number of slices, its affine and the position of
each of its slices. ``range_depth``: slices of the range that was chosen of it; absent where all
were. ``slice_distances``: of each of its slices, what the slice rule measured (the anchor rule: its
distance to the anchor); NaN for a slice that the rule was not given. ``slice_rules``: the rules that chose slices, each
with its name and fields. ``body_extents``, ``body_grid``: where the body lies in each slice, and on which grid
(:mod:`~monai_medpruner.transforms.find_body`). ``body_mask``: its shape on a coarse grid, packed
(:mod:`~monai_medpruner.transforms.body_tokens`). ``crop``, ``uncropped_size``: the part of each slice that is left, and
the size of the whole slice (:mod:`~monai_medpruner.transforms.crop_body`). ``plane``: "axial", "coronal" or "sagittal".
``slice_order``: from where to where the slices run.
``preprocessing``: the stages that the volume went through, each ``{"stage": ..., "transforms": [...]}``. ``notes``:
what was seen and how it was handled.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.collate import default_collate_fn_map

__all__ = ["ENCODED_STUDY", "PerVolumeList", "append_note", "collatable", "positions_from_affine", "range_depth"]

#: entry of an empty volume's metadata: a list of the encoded study that stands for the volume
ENCODED_STUDY = "encoded_study"


class PerVolumeList(list):
    """A list of any length that belongs to one volume, e.g. its kept slice indices.

    PyTorch's ``default_collate`` transposes lists and rejects lists of unequal length, so two volumes of different
    depth could not form a batch. A list of this type is kept whole in a batch, and ``monai.data.decollate_batch``
    returns each volume its own list. Otherwise it is a plain list.
    """


def _collate_per_volume(batch: list[PerVolumeList], *, collate_fn_map: Mapping | None = None) -> np.ndarray:
    """Wrap the lists of a batch in a 0-d object array, which ``decollate_batch`` unwraps without inspecting it."""
    collated = np.empty((), dtype=object)
    collated[()] = list(batch)
    return collated


# PyTorch's documented way to register a type with ``default_collate``
default_collate_fn_map[PerVolumeList] = _collate_per_volume


def collatable(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``meta`` whose lists are :class:`PerVolumeList`; the values themselves are not copied."""
    return {key: PerVolumeList(value) if type(value) is list else value for key, value in meta.items()}


def append_note(meta: MutableMapping[str, Any], note: str) -> None:
    """Append ``note`` to ``meta["notes"]``, as a new list, since the old one may be shared with the caller's volume."""
    meta["notes"] = PerVolumeList([*meta.get("notes", ()), note])


def range_depth(meta: Mapping[str, Any], slices: int) -> int:
    """Return the number of slices that a volume had before any was dropped: those of the range that was chosen.

    Args:
        meta: of the volume.
        slices: that it has now, for volumes of which no slices were selected.
    """
    return int(meta.get("range_depth", meta.get("source_depth", slices)))


def positions_from_affine(affine: torch.Tensor, axis: int, depth: int) -> PerVolumeList:
    """Positions of the slices of a regular grid, in mm along the direction of array axis ``axis``.

    Args:
        affine: (4, 4) voxel-to-world matrix in mm.
        axis: spatial array axis, 0 to 2.
        depth: number of slices.

    Returns:
        ``depth`` values, increasing: the world position of each slice projected on the axis' direction.
    """
    affine = affine.to(torch.float64)
    column = affine[:-1, axis]
    spacing = torch.linalg.vector_norm(column)
    start = torch.dot(affine[:-1, -1], column / spacing)
    return PerVolumeList((start + spacing * torch.arange(depth, dtype=torch.float64)).tolist())
