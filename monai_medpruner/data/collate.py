# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Collation of volumes and their questions into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor
from torch.nn.functional import pad

from monai_medpruner.data.volume_meta import ENCODED_STUDY, collatable
from monai_medpruner.errors import VolumeShapeError

__all__ = ["collate_volumes"]


def collate_volumes(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate items whose questions are lists of any length.

    MONAI's default collation transposes lists of questions. This function stacks tensors, padding shallower volumes
    with zeros after their last slice (:class:`~monai_medpruner.engines.VolumeQA` ignores the padding), and turns the
    rest into a list with one entry per item. The pixels of a slice stay together in memory. Questions become
    ``list[list[str]]``, one inner list per item.

    Args:
        items: dictionaries with the same keys; tensors are volumes ``(C, H, W, D)``.

    Raises:
        VolumeShapeError: the volumes differ in another axis than their depth.
    """
    return {key: _collate([item[key] for item in items]) for key in items[0]}


def _collate(values: list[Any]) -> Any:
    if not all(isinstance(value, torch.Tensor) for value in values):
        return values
    values = _in_one_form(values)
    if len({value.shape[:-1] for value in values}) > 1:
        raise VolumeShapeError(
            f"volumes of a batch may differ only in depth, got {[tuple(value.shape) for value in values]}; "
            "use a batch size of 1"
        )
    depth = max(value.shape[-1] for value in values)
    # stacking gives C order: with the slice axis before the pixels, a slice's pixels stay together in memory
    padded = [pad(value.movedim(-1, 1), (0, 0, 0, 0, 0, depth - value.shape[-1])) for value in values]
    for volume in padded:
        if isinstance(volume, MetaTensor):
            volume.meta = collatable(volume.meta)
    return collate_meta_tensor(padded).movedim(2, -1)


def _in_one_form(values: list[Any]) -> list[Any]:
    """Give volumes without voxels, whose study stands in their metadata, the shape and entries of the others.

    MONAI keeps only those entries of the metadata that all volumes of a batch have.
    """
    empty = [isinstance(value, MetaTensor) and bool(value.meta.get(ENCODED_STUDY)) for value in values]
    if all(empty) or not any(empty):
        return values
    first = values[empty.index(False)]
    meta = _meta(first)
    formed = []
    for value, without in zip(values, empty, strict=True):
        voxels = value.as_tensor().expand(*first.shape[:-1], 1) if without else value
        own = {**meta, ENCODED_STUDY: value.meta[ENCODED_STUDY]} if without else {**_meta(value), ENCODED_STUDY: []}
        formed.append(MetaTensor(voxels, meta=own))
    return formed


def _meta(value: torch.Tensor) -> dict[str, Any]:
    """A volume's metadata, empty for a plain tensor."""
    return value.meta if isinstance(value, MetaTensor) else {}
