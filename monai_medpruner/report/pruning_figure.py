# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A figure of the kept slices and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_medpruner.errors import VolumeShapeError
from monai_medpruner.results import SliceRecord, StudyRecord

__all__ = ["pruning_figure"]

_COLUMNS = 6
_DROPPED, _CONTEXTUAL = np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.6, 0.0])


def pruning_figure(
    volume: torch.Tensor, record: StudyRecord, slices: Sequence[int] | None = None, columns: int = _COLUMNS
) -> Figure:
    """Draw slices of a volume with their kept tokens.

    Selected tokens show the image, contextual tokens are tinted orange, and tokens that were merged into others or
    dropped are darkened. Dropped slices are pale and crossed out; cropped parts are pale.

    Args:
        volume: the whole volume before slice filtering, ``(C, H, W, D)`` in [0, 1]. The mean over the channels is
            drawn.
        record: record of the volume.
        slices: indices of the slices to draw, from 0; None draws all.
        columns: number of slices per row.

    Returns:
        The figure, for ``savefig`` or a notebook.

    Raises:
        VolumeShapeError: the volume has another shape, or is not that of the record.
    """
    if volume.ndim != 4 or volume.shape[-1] != record.total_slices:
        raise VolumeShapeError(
            f"expected a volume (C, H, W, {record.total_slices}), as in the record, got {tuple(volume.shape)}; pass "
            "the volume before slice filtering"
        )
    height, width, _ = record.geometry.shape
    if record.geometry.crop is not None and volume.shape[1:3] != (height, width):
        raise VolumeShapeError(
            f"the record is of slices that were cropped: expected whole ones of {height} x {width} voxels, got "
            f"{volume.shape[1]} x {volume.shape[2]}"
        )
    images = volume.detach().float().mean(0).clamp(0, 1).cpu().numpy()
    places = list(range(record.total_slices)) if slices is None else list(slices)
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.05 * rows), layout="constrained")
    kept = dict(zip(record.slice_indices, record.slices, strict=True))
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in panels:
        axes.set_axis_off()
    for axes, index in zip(panels, places, strict=False):
        _draw(axes, images[..., index], index, kept.get(index), record.geometry.crop)
    return figure


def _draw(
    axes: Axes,
    image: np.ndarray,
    index: int,
    record: SliceRecord | None,
    crop: tuple[tuple[int, int], tuple[int, int]] | None,
) -> None:
    height, width = image.shape
    colors = np.repeat(image[..., None], 3, axis=2)
    if record is None:
        axes.imshow(0.6 + 0.4 * colors, vmin=0, vmax=1)
        axes.plot([0, width - 1], [0, height - 1], color="gray", linewidth=0.6)
        axes.set_title(f"slice {index + 1}: dropped", fontsize=7, color="gray")
        return
    (top, bottom), (left, right) = crop or ((0, height), (0, width))
    shape = (bottom - top, right - left)
    shown = _on_pixels(record.keep, record.grid, shape)[..., None]
    contextual = _on_pixels(record.contextual, record.grid, shape)[..., None]
    encoded = colors[top:bottom, left:right]
    encoded = np.where(shown, encoded, 0.25 * encoded + 0.75 * _DROPPED)
    drawn = 0.6 + 0.4 * colors if crop else colors
    drawn[top:bottom, left:right] = np.where(contextual, 0.6 * encoded + 0.4 * _CONTEXTUAL, encoded)
    axes.imshow(drawn, vmin=0, vmax=1)
    axes.set_title(f"slice {index + 1}: {int(record.keep.sum())} of {record.keep.numel()} tokens", fontsize=7)


def _on_pixels(mask: torch.Tensor, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Return a mask of tokens as a mask of the slice's pixels, ``(H, W)``."""
    rows, columns = (np.arange(size) * count // size for size, count in zip(shape, grid, strict=True))
    return mask.reshape(grid).numpy()[np.ix_(rows, columns)]
