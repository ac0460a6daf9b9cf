# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Build the record of an encoded volume from the volume's metadata and the records of its slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from monai_medpruner.results import SliceRecord, StudyRecord, VolumeGeometry

__all__ = ["study_record"]


def study_record(
    volume: torch.Tensor,
    volume_id: str,
    slices: Sequence[SliceRecord],
    settings: Mapping[str, Any],
    seconds: Mapping[str, float],
    notes: Sequence[str] = (),
    unpruned_tokens_per_slice: int | None = None,
) -> StudyRecord:
    """Build the record of a volume.

    Args:
        volume: the kept slices, ``(C, H, W, K)``. The metadata of a MetaTensor describe the volume that the slices come
            from. A plain tensor is treated as a whole volume on a grid of 1 mm.
        volume_id: hash of the volume, used if the metadata have none.
        slices: record of each slice.
        settings: settings of preprocessing, model and pruner.
        seconds: seconds per stage.
        notes: notes in addition to those of the metadata.
        unpruned_tokens_per_slice: see :class:`~monai_medpruner.results.StudyRecord`.
    """
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    kept = tuple(int(index) for index in meta.get("kept_indices", range(volume.shape[-1])))
    total = int(meta.get("source_depth", len(kept)))
    affine = meta.get("source_affine", meta.get("affine", torch.eye(4)))
    positions = meta.get("source_positions_mm", meta.get("slice_positions_mm", ()))
    distances = meta.get("slice_distances")
    source, plane = meta.get("source"), meta.get("plane")
    height, width = (int(size) for size in meta.get("uncropped_size", volume.shape[1:3]))
    crop = [(int(first), int(last)) for first, last in meta.get("crop", ())]
    return StudyRecord(
        volume_id=str(meta.get("volume_id", volume_id)),
        image=str(meta.get("filename_or_obj", "")),
        total_slices=total,
        slice_indices=kept,
        slices=tuple(slices),
        geometry=VolumeGeometry(
            shape=(height, width, total),
            affine=_matrix(affine),
            original_affine=_matrix(meta.get("original_affine", affine)),
            slice_positions_mm=tuple(float(one) for one in positions) if len(positions) == total else (),
            crop=(crop[0], crop[1]) if crop else None,
        ),
        slice_distances=None if distances is None else tuple(float(one) for one in distances),
        source=source,
        modality=meta.get("modality"),
        plane=plane,
        # files without geometry do not state the direction of their slices
        order="as stored" if source in ("npy", "images") else meta.get("slice_order"),
        notes=(*meta.get("notes", ()), *notes),
        settings=settings,
        seconds=dict(seconds),
        range_slices=int(meta["range_depth"]) if "range_depth" in meta else None,
        unpruned_tokens_per_slice=unpruned_tokens_per_slice,
    )


def _matrix(affine: Any) -> torch.Tensor:
    return torch.as_tensor(affine, dtype=torch.float64).detach().cpu().clone()
