# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which slices the anchor rule keeps (eq. 2 of arXiv:2603.11625): exact decisions at the speed of memory.

The walk is sequential: the anchor is the last kept slice. Each slice is read once and measured in float32 where that
holds its voxels; only where the distance is within rounding of γ is it measured exactly. Where slices are interleaved
in memory, reading one slice touches every cache line of the volume, so blocks of them are transposed first.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from monai_medpruner.errors import NonFiniteVoxelsError, SettingsError
from monai_medpruner.transforms.slice_reader import SliceReader

__all__ = ["GAMMA_GRID", "AnchoredSlices", "anchor_slices", "exact_mean", "guarded_slices", "smallest_threshold"]

#: γ that every search tries, for intensities in [0, 1]: 0, then 0.001 to 1 in steps of 10 percent, and the γ that are
#: used by themselves, 0.025, 0.05 and 0.1. No distance is above 1: the last keeps the first slice alone.
GAMMA_GRID = tuple(sorted({0.0, *(round(0.001 * 1.1**step, 6) for step in range(73)), 0.025, 0.05, 0.1, 1.0}))

_COLUMNS = 1024  # a slice is summed in so many columns, and these in float64: few roundings in its own precision


class AnchoredSlices(NamedTuple):
    """What the anchor rule decided.

    Attributes:
        kept: indices of the kept slices, ascending, always with 0.
        distances: one value a slice, in the units of the image: the mean absolute difference to the anchor that the
            slice was compared with, 0.0 for the first. Where voxels fit into float32, differences are rounded to
            float32 and the relative error of the mean is about 1e-7; elsewhere it is within float64 rounding. By the
            mean alone, a slice after the first is kept exactly where its distance is greater than γ.
    """

    kept: list[int]
    distances: list[float]


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused, or measured again in float64
@torch.no_grad()
def anchor_slices(image: torch.Tensor, axis: int, threshold: float) -> AnchoredSlices:
    """Decide which slices the anchor rule keeps.

    The first slice is kept. A later one is kept, and becomes the anchor, when the mean absolute difference to the
    current anchor is greater than ``threshold``. Voxels and differences are float64 (64-bit integers beyond 2**53 are
    rounded); the mean is the exact mean of the differences rounded once, so that order, layout and device do not matter
    and a constant step equal to ``threshold`` is never greater.

    Args:
        image: any dtype, layout and device, with at least one slice of at least one pixel.
        axis: axis along which slices lie.
        threshold: γ, in the units of ``image``, at least 0.

    Raises:
        NonFiniteVoxelsError: a slice or its anchor holds NaN or infinite voxels.
    """
    reader = SliceReader(image, axis)
    distance_between = _Distance(reader.plane)
    decided = AnchoredSlices([0], [0.0])
    anchor = reader.owned(reader.read(0))
    for index in range(1, reader.depth):
        pixels = reader.read(index)
        distance = distance_between(pixels, anchor, threshold)
        decided.distances.append(distance)
        if distance > threshold:
            decided.kept.append(index)
            anchor = reader.owned(pixels)
    return decided


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused, or measured again in float64
@torch.no_grad()
def smallest_threshold(image: torch.Tensor, axis: int, max_slices: int, grid: Sequence[float] = GAMMA_GRID) -> float:
    """Return the smallest γ of a grid for which :func:`anchor_slices` keeps at most ``max_slices`` slices.

    The number of slices kept is not monotone in γ, so γ are tried from the smallest up, each until it has kept too
    many. Walks at neighboring γ meet the same pairs of slices; a pair is measured once. A volume that is not float32 or
    float64 with slices together in memory is copied once.

    Args:
        image: any dtype, layout and device, with at least one slice of at least one pixel.
        axis: axis along which slices lie.
        max_slices: at least 1.
        grid: γ to try, in the units of ``image``, each at least 0; the default is for intensities in [0, 1].

    Raises:
        NonFiniteVoxelsError: a slice or its anchor holds NaN or infinite voxels.
        SettingsError: ``max_slices`` is below 1, or every γ of the grid keeps more slices.
    """
    if max_slices < 1:
        raise SettingsError(f"max_slices must be at least 1, got {max_slices}.")
    reader = SliceReader(image, axis)
    slices = reader.read_all()
    distance_between = _Distance(reader.plane)
    measured: dict[tuple[int, int], float] = {}
    for threshold in sorted(grid):
        kept = [0]
        for index in range(1, reader.depth):
            pair = kept[-1], index
            if pair not in measured or not distance_between.decides(measured[pair], threshold):
                measured[pair] = distance_between(slices[index], slices[kept[-1]], threshold)
            if measured[pair] > threshold:
                kept.append(index)
                if len(kept) > max_slices:
                    break
        else:
            return threshold
    raise SettingsError(
        f"no threshold of the grid, up to {max(grid, default=None)}, keeps at most {max_slices} of {reader.depth} "
        "slices: give a grid in the units of the image."
    )


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused, or measured again in float64
@torch.no_grad()
def guarded_slices(
    image: torch.Tensor, axis: int, threshold: float, block: tuple[int, int], guard_threshold: float
) -> AnchoredSlices:
    """Decide which slices the anchor rule, or its guard for small lesions, keeps.

    As :func:`anchor_slices`, but a slice is also kept, and becomes the anchor, when in some channel and block of pixels
    the mean difference to the anchor is above ``guard_threshold`` or below its negative. Signed differences are
    averaged, so that noise cancels and a lesion does not. Block means are float64 and rounded as any sum is.

    Args:
        image: (C, H, W, D) with D at ``axis``; any dtype, layout and device, without empty axes.
        axis: axis along which slices lie.
        threshold: γ, in the units of ``image``, at least 0.
        block: pixels of a block along either axis of a slice, at most the slice's; the last blocks may hold fewer.
        guard_threshold: in the units of ``image``, above 0.

    Raises:
        NonFiniteVoxelsError: a slice or its anchor holds NaN or infinite voxels.
    """
    reader = SliceReader(image, axis)
    decided = AnchoredSlices([0], [0.0])
    anchor = reader.owned(reader.read(0))
    for index in range(1, reader.depth):
        pixels = reader.read(index)
        difference = _difference(pixels, anchor)
        # the mean comes first, for it refuses NaN
        distance = _mean(difference.abs(), threshold)
        decided.distances.append(distance)
        if distance > threshold or _block_mean(reader.as_image(difference), block) > guard_threshold:
            decided.kept.append(index)
            anchor = reader.owned(pixels)
    return decided


def _block_mean(difference: torch.Tensor, block: tuple[int, int]) -> float:
    """Largest absolute value of the means over the blocks of a (C, H, W) difference."""
    return float(avg_pool2d(difference, block, ceil_mode=True, count_include_pad=False).abs_().max())


def _difference(pixels: np.ndarray, anchor: np.ndarray) -> torch.Tensor:
    """A slice less its anchor in float64."""
    return torch.from_numpy(np.subtract(pixels, anchor, dtype=np.float64))


def _mean(difference: torch.Tensor, threshold: float) -> float:
    """Mean of float64 ``difference``, on the same side of ``threshold`` as the exact mean rounded once to float64."""
    count = difference.numel()
    mean = float(difference.sum()) / count
    if not isfinite(mean):
        raise NonFiniteVoxelsError(
            "the anchor filter met NaN or infinite voxels (or differences beyond float64): run CheckVolume first."
        )
    # a sum of ``count`` non-negative terms in any order is within (count - 1) roundings of the exact one
    bound = mean * (count + 2) * 2.0**-52
    return mean if abs(mean - threshold) > bound else exact_mean(difference)


def exact_mean(values: torch.Tensor) -> float:
    """Return the mean of finite float64 ``values`` as if computed without rounding, then rounded once to float64.

    Values are whole numbers below 2**53 times a power of two. Upper and lower halves of these numbers are summed by
    power; both sums stay below 2**53 for up to 2**26 values, so float64 holds them exactly, in any order.
    """
    low, high = (float(extreme) for extreme in torch.aminmax(values))
    if low == high:  # a constant step: nothing to sum
        return low
    total = Fraction(0)
    for part in values.reshape(-1).split(2**26):
        mantissa, exponent = torch.frexp(part)
        digits = (mantissa * 2.0**53).to(torch.int64)
        lowest = int(exponent.min())
        power = (exponent - lowest).to(torch.int64)
        upper, lower = (
            torch.bincount(power, weights=half.to(torch.float64)).tolist()
            for half in (torch.div(digits, 2**26, rounding_mode="trunc"), torch.fmod(digits, 2**26))
        )
        whole = sum(
            ((int(up) << 26) + int(low)) << shift for shift, (up, low) in enumerate(zip(upper, lower, strict=True))
        )
        total += whole * Fraction(2) ** (lowest - 53)
    return float(total / values.numel())


class _Distance:
    """Mean absolute difference of two slices: in their own precision where that decides, else exact.

    Args:
        plane: a slice, for its shape and dtype.
    """

    def __init__(self, plane: torch.Tensor) -> None:
        self.count = plane.numel()
        rows = -(-self.count // _COLUMNS)
        self.columns = torch.zeros((rows, _COLUMNS), dtype=plane.dtype).numpy()
        self.difference = self.columns.reshape(-1)[: self.count].reshape(plane.shape)  # zeros fill the last row up
        # rounding of a difference, of a column's sum in any order, and of the sum over columns; each taken twofold
        self.relative_error = (rows + 2) * torch.finfo(plane.dtype).eps + (_COLUMNS + 4) * 2.0**-51

    def __call__(self, pixels: np.ndarray, anchor: np.ndarray, threshold: float) -> float:
        """Return the distance, on the same side of ``threshold`` as the exact mean rounded once to float64."""
        np.subtract(pixels, anchor, out=self.difference)
        np.abs(self.difference, out=self.difference)
        mean = float(np.add.reduce(np.add.reduce(self.columns), dtype=np.float64)) / self.count
        return mean if self.decides(mean, threshold) else _mean(_difference(pixels, anchor).abs_(), threshold)

    def decides(self, mean: float, threshold: float) -> bool:
        """Whether a measured ``mean`` lies on the same side of γ as the exact one, whatever was rounded."""
        return isfinite(mean) and (mean == 0 or abs(mean - threshold) > mean * self.relative_error)
