# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What each stage kept of a lesion, by its mask, and the mask's outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_medpruner.report.keep_map import token_of_pixels
from monai_medpruner.results import StudyRecord

__all__ = ["LesionShares", "lesion_shares", "outline"]


@dataclass(frozen=True)
class LesionShares:
    """Shares of a lesion's voxels, each of all of them.

    Args:
        slices: indices of the slices that show it.
        kept_slices: of these, the ones that were kept.
        read: share in kept slices.
        encoded: of it, what lies in the part that the encoder got; all unless slices were cropped.
        selected: share in selected tokens.
        contextual: share in contextual tokens, which are means of several tokens.
        merged: share in tokens that were merged into others.
    """

    slices: tuple[int, ...]
    kept_slices: tuple[int, ...]
    read: float
    encoded: float
    selected: float
    contextual: float
    merged: float


def lesion_shares(mask: np.ndarray, record: StudyRecord) -> LesionShares:
    """Count a lesion's voxels stage by stage. A voxel belongs to the token at its center.

    Args:
        mask: bool ``(H, W, D)`` in the view of the record, not empty.
        record: of the study. Slices that a filter dropped behind the encoder do not count as kept.
    """
    height, width, _ = record.geometry.shape
    (top, bottom), (left, right) = record.geometry.crop or ((0, height), (0, width))
    shown = np.flatnonzero(mask.any((0, 1)))
    counts = dict.fromkeys(("read", "encoded", "selected", "contextual", "merged"), 0)
    gone = set(record.dropped_slices)
    for index, one in zip(record.slice_indices, record.slices, strict=True):
        if index in gone or not mask[..., index].any():
            continue
        counts["read"] += int(mask[..., index].sum())
        inside = mask[top:bottom, left:right, index]
        counts["encoded"] += int(inside.sum())
        token = token_of_pixels(one.grid, inside.shape)[inside]
        primary, contextual = one.primary.numpy(), one.contextual.numpy()
        counts["selected"] += int(primary[token].sum())
        counts["contextual"] += int(contextual[token].sum())
        absorbed = (one.merged_into.numpy() >= 0) & ~primary & ~contextual
        counts["merged"] += int(absorbed[token].sum())
    total = int(mask.sum())
    kept = sorted(set(shown.tolist()) & set(record.slice_indices) - gone)
    return LesionShares(tuple(shown.tolist()), tuple(kept), **{name: count / total for name, count in counts.items()})


def outline(mask: np.ndarray) -> str:
    """Return the edges between a mask and what is around it, as an SVG path in pixels.

    Args:
        mask: bool ``(H, W)``.
    """
    padded = np.pad(mask, 1)
    path = []
    down, across = padded[1:] != padded[:-1], padded[:, 1:] != padded[:, :-1]
    for y, x, length in _runs(down[:, 1:-1]):
        path.append(f"M{x} {y}h{length}")
    for x, y, length in _runs(across[1:-1].T):
        path.append(f"M{x} {y}v{length}")
    return "".join(path)


def _runs(edges: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the runs of True in the rows of an array: row, first column, length."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return [(int(row), int(first), int(last - first)) for (row, first), (_, last) in zip(starts, ends, strict=True)]
