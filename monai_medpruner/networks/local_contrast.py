# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Local contrast of each token's square, on the pixels that the encoder gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from monai_medpruner.errors import SettingsError

__all__ = ["local_contrast_of", "slice_planes"]

_CHANNELS = 3
# the unit of what follows: pixels of slices averaged to so many along either side of a token
_SIDE = 16
_SIGMAS = (1.5, 2.5, 4.0)
_SURROUNDING = 4.0
_MARGIN = 4
# shares of the volume's range at which a pixel counts as clipped by the window
_CLIPPED = 0.05, 0.95

_Gaussians = tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def local_contrast_of(slices: Sequence[torch.Tensor], grids: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the local contrast of tokens, as :class:`~monai_medpruner.pruners.LocalContrast` says.

    Args:
        slices: pixels of each slice, ``(C, H, W)``; all of them are one volume.
        grids: rows and columns of each slice's tokens, which divide the slice evenly.

    Returns:
        float32 ``(S, M)``, 0 at padding. The host waits for no slice.
    """
    with torch.autocast(slices[0].device.type, enabled=False):
        ends = [torch.stack([one.amin((1, 2)), one.amax((1, 2))]) for one in slices]
        low = torch.stack([one[0] for one in ends]).amin(0).float()[:, None, None]
        high = torch.stack([one[1] for one in ends]).amax(0).float()[:, None, None]
        range_ = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        result = torch.zeros(len(slices), max(rows * columns for rows, columns in grids), device=low.device)
        gaussians = {grid: _gaussians(grid, low.device) for grid in set(grids)}
        for index, (pixels, (rows, columns)) in enumerate(zip(slices, grids, strict=True)):
            plane = adaptive_avg_pool2d((pixels.float() - low) / range_, (rows * _SIDE, columns * _SIDE))
            squares = _contrast(plane, gaussians[rows, columns]).amax(0).view(rows, _SIDE, columns, _SIDE)
            result[index, : rows * columns] = squares.amax((1, 3)).flatten()
    return result


def _gaussians(grid: tuple[int, int], device: torch.device) -> list[_Gaussians]:
    """Matrices that smooth columns and rows of a slice, narrow and wide, for each width."""

    def pair(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = (_gaussian(tokens * _SIDE, sigma, device) for tokens in grid)
        return height, width

    return [(pair(sigma), pair(_SURROUNDING * sigma)) for sigma in _SIGMAS]


def _contrast(plane: torch.Tensor, gaussians: Sequence[_Gaussians]) -> torch.Tensor:
    """Contrast of each pixel to its surroundings, ``(C, h, w)``, for values in [0, 1]."""
    clipped = ((plane <= _CLIPPED[0]) | (plane >= _CLIPPED[1])).float()
    clipped = _grown(1 - _grown(1 - clipped, 1), 1)  # without specks of noise
    inside = 1 - _grown(clipped, _MARGIN)
    # beside bone, only the first sees what lies at the edge; far from it, the second does not mistake the edge for a
    # structure
    weights = torch.stack([1 - clipped, inside])
    parts = torch.stack([plane * weights, weights])
    means = [[_mean(parts, *matrices) for matrices in pair] for pair in gaussians]
    return torch.stack([(near - far).abs() for near, far in means]).amax(0).mean(0) * inside


def _grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """A mask of zeros and ones ``(C, h, w)``, with the pixels around."""
    return max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)


def _mean(parts: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Weighted means ``(..., h, w)`` of values times weights and weights, ``(2, ..., h, w)``."""
    sums, weights = columns @ parts @ rows
    return sums / weights.clamp(min=1e-3)


def _gaussian(length: int, sigma: float, device: torch.device) -> torch.Tensor:
    """The symmetric matrix ``(length, length)`` that smooths a line of pixels, without what lies beyond 3 sigma."""
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=device) ** 2) / (2 * sigma**2))
    place = torch.arange(length, device=device)
    away = place - place[:, None] + reach
    within = (away >= 0) & (away <= 2 * reach)
    return (kernel / kernel.sum())[away.clamp(0, 2 * reach)] * within


def slice_planes(
    pixels: torch.Tensor, grids: Sequence[tuple[int, int]], patches_per_token: int
) -> Sequence[torch.Tensor]:
    """Return the pixels of each slice as a picture, ``(C, H, W)``.

    Args:
        pixels: a family's pixel values: ``(S, C, H, W)``; or flat patches of all slices, merge group by merge group,
            each with its channels, frames, rows and columns, of which the first frame is taken.
        grids: rows and columns of each slice's tokens.
        patches_per_token: image patches that form one token.

    Raises:
        SettingsError: the pixels have another layout.
    """
    if pixels.ndim == 4:
        return pixels.unbind()
    merge, values = math.isqrt(patches_per_token), pixels.shape[-1] // _CHANNELS
    # p * p numbers of one frame, or twice as many, which are no square
    side = math.isqrt(values)
    side = side if side**2 == values else math.isqrt(values // 2)
    if (
        pixels.ndim != 2
        or merge**2 != patches_per_token
        or pixels.shape[-1] not in (n * _CHANNELS * side**2 for n in (1, 2))
    ):
        raise SettingsError(
            f"the local contrast needs slices (S, C, H, W), or flat square patches of {_CHANNELS} channels and 1 or 2 "
            f"frames; this model's pixels have the shape {tuple(pixels.shape)}: use another pruner"
        )
    counts = [rows * columns * patches_per_token for rows, columns in grids]
    planes = []
    for one, (rows, columns) in zip(pixels.split(counts), grids, strict=True):
        cells = one.reshape(rows, columns, merge, merge, _CHANNELS, -1, side, side)[:, :, :, :, :, 0]
        plane = cells.permute(4, 0, 2, 5, 1, 3, 6)
        planes.append(plane.reshape(_CHANNELS, rows * merge * side, columns * merge * side))
    return planes
