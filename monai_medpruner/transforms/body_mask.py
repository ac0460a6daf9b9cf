# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the patient's body lies in a CT volume, on a coarse grid, without the table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

__all__ = ["body_extents", "body_mask", "connected_components", "extents_of", "find_body"]

_GRID_MM = 4.0
_AIR_TO_WATER = -500.0  # HU, halfway
_BLOCK = 16  # coarse slices at a time: less than the volume in memory, and whole cache lines of a depth-last one
# another component is a part of the body, such as an arm beside the trunk, from this share of the largest one's size,
_PART_SHARE = 0.01
# where it is no lighter than fat (-100 HU): the shells of a table, averaged over the coarse grid, are
_PART_HU = -150.0
_REGROWN = 3


def find_body(voxels: torch.Tensor, spacing: Sequence[float]) -> tuple[np.ndarray, tuple[int, int, int]] | None:
    """Find the body on the coarse grid.

    Args:
        voxels: ``(H, W, D)`` in HU, slices last.
        spacing: of its axes, in mm.

    Returns:
        :func:`body_mask`, and how many voxels of each axis of ``voxels`` form one of the mask. None where the volume
        holds no air: then nothing tells the body from its surroundings.
    """
    steps = coarse_steps(spacing)
    coarse = coarse_means(voxels, steps)
    if not bool((coarse < _AIR_TO_WATER).any()):
        return None
    return body_mask(coarse), steps


def body_extents(voxels: torch.Tensor, spacing: Sequence[float]) -> np.ndarray | None:
    """Find the rows and columns of each slice that the body covers; arguments as in :func:`find_body`.

    Returns:
        :func:`extents_of` the body; None where the volume holds no air.
    """
    found = find_body(voxels, spacing)
    return None if found is None else extents_of(*found, voxels.shape)


def extents_of(body: np.ndarray, steps: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Return the rows and columns of each slice that the body covers.

    Args:
        body: bool ``(D, H, W)`` on the coarse grid, of :func:`find_body`.
        steps: likewise.
        shape: H, W and D of the volume.

    Returns:
        int64 ``(D, 4)``: first row, last row plus one, first column, last column plus one; all 0 for a slice without
        body. Edges lie on the coarse grid, outside the body.
    """
    rows = _ends(body.max(axis=2)) * steps[0]
    columns = _ends(body.max(axis=1)) * steps[1]
    height, width, depth = shape
    extents = np.concatenate([rows.clip(max=height), columns.clip(max=width)], axis=1)
    return extents.repeat(steps[2], axis=0)[:depth]


def body_mask(coarse: torch.Tensor) -> np.ndarray:
    """Select the body: the largest component after a morphological opening, and other parts that are large and dense.

    The opening, by a cube of three voxels, removes what is thinner (the shells of the table, tubes, sheets) and cuts
    thin bridges. Three steps of growth inside the threshold then give thin parts of the body back, such as nose and
    auricles, up to 12 mm of them. What lies beyond the volume counts as body, so that a body cut off by its border
    stays. An arm or a leg that forms a component of its own belongs to the body where it has 1 % of the largest
    component's size and is no lighter than fat on average.

    Args:
        coarse: ``(D, H, W)`` means in HU over a grid of about 4 mm.

    Returns:
        bool ``(D, H, W)``.
    """
    dense = coarse > _AIR_TO_WATER
    opened = _dilated(~_dilated(~dense)).numpy()
    labels = connected_components(opened)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():
        return opened
    means = np.bincount(labels.ravel(), weights=coarse.numpy().ravel()) / np.maximum(sizes, 1)
    part = (sizes >= _PART_SHARE * sizes.max()) & (means >= _PART_HU)
    part[sizes.argmax()] = True
    part[0] = False
    body = torch.from_numpy(part[labels])
    for _ in range(_REGROWN):
        body = _dilated(body) & dense
    return body.numpy()


def connected_components(mask: np.ndarray) -> np.ndarray:
    """Label the components of a mask whose voxels touch by a face.

    Runs along the last axis are joined by a union of sets. ITK does the same, but it takes seconds to load its filters;
    MONAI asks for scikit-image, which this package does not need otherwise.

    Args:
        mask: bool, three axes.

    Returns:
        int64, shape of ``mask``: 0 outside, components from 1 on in the order of their first voxel.
    """
    starts = mask.copy()
    starts[..., 1:] &= ~mask[..., :-1]
    runs = np.where(mask, starts.ravel().cumsum().reshape(mask.shape), 0)
    root = np.arange(runs.max() + 1)
    one, other = np.concatenate([_touching(runs, 0), _touching(runs, 1)], axis=1)
    while (apart := root[one] != root[other]).any():
        one, other = one[apart], other[apart]
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        np.minimum.at(root, high, low)
        while (root[root] != root).any():
            root = root[root]
    return np.unique(root, return_inverse=True)[1][runs]


def _touching(runs: np.ndarray, axis: int) -> np.ndarray:
    """Pairs of runs in neighboring lines along ``axis``, ``(2, N)``; each pair where the two begin to overlap."""
    one, other = runs.take(range(runs.shape[axis] - 1), axis), runs.take(range(1, runs.shape[axis]), axis)
    both = (one > 0) & (other > 0)
    both[..., 1:] &= ~both[..., :-1]
    return np.stack([one[both], other[both]])


def coarse_steps(spacing: Sequence[float]) -> tuple[int, int, int]:
    """Voxels along each axis that form one voxel of about 4 mm."""
    first, second, third = (max(1, round(_GRID_MM / size)) for size in spacing)
    return first, second, third


def coarse_means(voxels: torch.Tensor, steps: Sequence[int]) -> torch.Tensor:
    """Means over cells of ``steps`` voxels, float32 ``(D, H, W)`` on the CPU; cells at the far ends may be smaller.

    Args:
        voxels: ``(H, W, D)``.
        steps: cell size along each axis.
    """
    cell = tuple(min(size, length) for size, length in zip(steps[:2], voxels.shape[:2], strict=True))
    parts = []
    for block in voxels.detach().movedim(-1, 0).split(_BLOCK * steps[2]):
        thick = torch.stack([one.mean(0) for one in block.float().contiguous().split(steps[2])])
        parts.append(avg_pool2d(thick[:, None], cell, ceil_mode=True, count_include_pad=False)[:, 0])
    return torch.cat(parts).cpu()


def _dilated(mask: torch.Tensor) -> torch.Tensor:
    """Dilate by a cube of three voxels; nothing comes in from beyond the border."""
    for axis in range(mask.ndim):
        out = mask.clone()
        for source, target in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            before = (slice(None),) * axis
            out[(*before, target)] |= mask[(*before, source)]
        mask = out
    return mask


def _ends(lines: np.ndarray) -> np.ndarray:
    """First and last-plus-one true entry of each line ``(D, N)``, int64 ``(D, 2)``; 0 and 0 where there is none."""
    last = lines.shape[1] - lines[:, ::-1].argmax(1)
    return np.stack([lines.argmax(1), last], axis=1) * lines.max(axis=1)[:, None]
