# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which visual tokens of a slice show the body, by the mask that FindBody recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import max_pool2d

from monai_medpruner.data.volume_meta import PerVolumeList
from monai_medpruner.errors import VolumeShapeError

__all__ = ["body_tokens", "packed_mask"]


def packed_mask(body: np.ndarray, steps: Sequence[int]) -> PerVolumeList:
    """Pack a body mask into plain values that metadata can hold.

    Args:
        body: bool ``(D, H, W)`` on the coarse grid.
        steps: voxels of rows, columns and slices that form one of the mask.

    Returns:
        Shape of the mask, the steps, and its bits in hexadecimal digits.
    """
    return PerVolumeList([list(body.shape), [int(step) for step in steps], np.packbits(body).tobytes().hex()])


def body_tokens(
    meta: Mapping[str, Any], size: tuple[int, int], grids: Sequence[tuple[int, int]]
) -> list[torch.Tensor] | None:
    """Say which tokens of each kept slice show the body.

    A token shows it where its part of the slice, and 4 mm around, touches a voxel of the mask. A slice that shows no
    body anywhere keeps all tokens, so that none is left without.

    Args:
        meta: of the kept slices.
        size: rows and columns of the slices as they are.
        grids: rows and columns of each slice's tokens, which divide the slice evenly.

    Returns:
        Per slice a bool mask ``(N_i,)``, row by row; None where the metadata hold no mask.

    Raises:
        VolumeShapeError: the mask does not cover the slices: the volume was turned or resampled since.
    """
    if "body_mask" not in meta:
        return None
    shape, steps, bits = meta["body_mask"]
    flat = np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=int(np.prod(shape)))
    body = flat.reshape([int(length) for length in shape]).astype(bool)
    whole = [int(length) for length in meta.get("uncropped_size", size)]
    if [-(-length // int(step)) for length, step in zip(whole, steps, strict=False)] != list(body.shape[1:]):
        raise VolumeShapeError(
            f"the body was found on slices of another size than {whole}: put FindBody right before the windows, after "
            "the plane is chosen."
        )
    grown = max_pool2d(torch.from_numpy(body).float()[:, None], 3, stride=1, padding=1)[:, 0].bool().numpy()
    box = meta.get("crop") or [[0, whole[0]], [0, whole[1]]]
    kept = meta.get("kept_indices", range(len(grids)))
    found: dict[tuple[int, tuple[int, int]], torch.Tensor] = {}  # neighboring slices share a voxel of the mask
    masks = []
    for index, grid in zip(kept, grids, strict=True):
        slab = min(int(index) // int(steps[2]), len(grown) - 1)
        if (slab, grid) not in found:
            rows, columns = (
                _touched(grid[axis], box[axis], int(steps[axis]), grown.shape[1 + axis]).astype(np.float32)
                for axis in (0, 1)
            )
            mask = torch.from_numpy((rows.T @ grown[slab].astype(np.float32) @ columns > 0).ravel())
            found[slab, grid] = mask if mask.any() else torch.ones_like(mask)
        masks.append(found[slab, grid])
    return masks


def _touched(count: int, ends: Sequence[int], step: int, cells: int) -> np.ndarray:
    """Bool ``(cells, count)``: whether a cell of ``step`` voxels overlaps one of ``count`` equal parts of a stretch."""
    edges = np.linspace(int(ends[0]), int(ends[1]), count + 1)
    first = np.arange(cells)[:, None] * step
    return (first < edges[1:]) & (first + step > edges[:-1])
