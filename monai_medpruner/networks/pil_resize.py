# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pillow's resizing of 8-bit images for batches of tensors, equal to it bit for bit.

On a CPU Pillow itself resizes, four planes at a time: its loops over four channels take little longer than over three.

On a GPU the same sums are matrix products. Pillow resizes in two passes, one along each axis. A pass sums integer
levels with coefficients of 22 fractional bits, adds one half, truncates and clips to 0 to 255
(``src/libImaging/Resample.c``). Each output depends on a few neighboring inputs, so a pass is a banded matrix, which is
multiplied block by block in float64, which holds all these sums exactly. Which pass comes first depends on the sizes
and on Pillow's version (13.0 begins with the columns where the height shrinks much more). So :func:`find_resizing`
resizes one image of noise with the Pillow that is installed, and takes the order that gives the same levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

__all__ = ["Resizing", "find_resizing", "resize_levels"]

_PRECISION_BITS = 22
# outputs per block: larger blocks multiply more zeros, smaller ones make more calls
_BLOCK = 64
_ROWS, _COLUMNS = 1, 2


def resize_levels(levels: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """Resize gray images as ``PIL.Image.resize`` does.

    Args:
        levels: ``(N, H, W)``, uint8.
        size: height and width of the result.
        resample: Pillow's number of the resampling.

    Returns:
        ``(N, height, width)``, uint8, on the same device; ``levels`` itself where its size stays.
    """
    before = (levels.shape[1], levels.shape[2])
    if before == size:
        return levels
    if levels.is_cuda:
        resizing = find_resizing(before, size, resample, levels.device)
        if resizing is not None:
            return resizing(levels)
    return _resize_with_pillow(levels.cpu(), size, resample).to(levels.device)


def _resize_with_pillow(levels: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """Up to four planes as the channels of one image, which Pillow resizes independently of each other."""
    resized = torch.empty(len(levels), *size, dtype=torch.uint8)
    planes = [Image.fromarray(plane) for plane in levels.numpy()]
    for start in range(0, len(planes), 4):
        group = planes[start : start + 4]
        if len(group) > 2:
            merged = Image.merge("CMYK" if len(group) == 4 else "RGB", group)
            results = merged.resize((size[1], size[0]), resample).split()
        else:
            results = tuple(plane.resize((size[1], size[0]), resample) for plane in group)
        for number, result in enumerate(results, start):
            resized[number] = torch.from_numpy(np.array(result))
    return resized


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


# the filters whose sums are reproduced, and their support in input pixels
_FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    int(Image.Resampling.BILINEAR): (_bilinear, 1.0),
    int(Image.Resampling.BICUBIC): (_bicubic, 2.0),
}


@dataclass(frozen=True)
class Resizing:
    """Pillow's resizing as matrix products.

    Args:
        inputs: height and width of the images.
        outputs: height and width of the results.
        resample: Pillow's number of the resampling, bilinear or bicubic.
        order: the axes of ``(N, H, W)`` that are resized, in the order of their passes.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    resample: int
    order: tuple[int, ...]

    def __call__(self, levels: torch.Tensor) -> torch.Tensor:
        """Resize gray images ``(N, H, W)``, uint8, on any device that knows float64."""
        sums = levels.double()
        for axis in self.order:
            count = self.outputs[axis - 1]
            sums = _resize_axis(sums, axis, count, _blocks(self.inputs[axis - 1], count, self.resample, levels.device))
        return sums.to(torch.uint8)


@lru_cache(maxsize=64)
def find_resizing(
    inputs: tuple[int, int], outputs: tuple[int, int], resample: int, device: torch.device
) -> Resizing | None:
    """Find how the installed Pillow resizes images, by one image of noise.

    Args:
        inputs: height and width of the images.
        outputs: height and width of the results.
        resample: Pillow's number of the resampling.
        device: where images will be resized.

    Returns:
        The resizing, or None where the resampling is another than bilinear and bicubic, or Pillow's levels are others.
    """
    if resample not in _FILTERS:
        return None
    noise = np.random.default_rng(0).integers(0, 256, inputs, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((outputs[1], outputs[0]), resample))
    levels = torch.from_numpy(noise)[None].to(device)
    for order in ((_COLUMNS, _ROWS), (_ROWS, _COLUMNS)):
        passes = tuple(axis for axis in order if inputs[axis - 1] != outputs[axis - 1])
        resizing = Resizing(inputs, outputs, resample, passes)
        if np.array_equal(resizing(levels)[0].cpu().numpy(), expected):
            return resizing
    return None


@dataclass(frozen=True)
class _Block:
    """Outputs ``start`` to ``stop`` of a pass, from the inputs ``first`` to ``last``, with their coefficients."""

    start: int
    stop: int
    first: int
    last: int
    coefficients: torch.Tensor


def _resize_axis(levels: torch.Tensor, axis: int, count: int, blocks: list[_Block]) -> torch.Tensor:
    """One pass: resize ``(N, H, W)``, float64, along an axis to ``count`` pixels."""
    shape = list(levels.shape)
    shape[axis] = count
    resized = levels.new_empty(shape)
    for block in blocks:
        inputs = levels.narrow(axis, block.first, block.last - block.first)
        sums = inputs @ block.coefficients if axis == _COLUMNS else block.coefficients.T @ inputs
        resized.narrow(axis, block.start, block.stop - block.start).copy_(sums)
    return resized.add_(0.5).clamp_(0, 255).floor_()


@lru_cache(maxsize=64)
def _blocks(inputs: int, outputs: int, resample: int, device: torch.device) -> list[_Block]:
    """The coefficients of a pass, block by block."""
    bounds, coefficients = _coefficients(inputs, outputs, resample)
    blocks = []
    for start in range(0, outputs, _BLOCK):
        stop = min(start + _BLOCK, outputs)
        first, last = bounds[start][0], max(last for _, last in bounds[start:stop])
        band = torch.zeros(last - first, stop - start, dtype=torch.float64)
        for column, (low, high) in enumerate(bounds[start:stop]):
            band[low - first : high - first, column] = coefficients[start + column, : high - low]
        blocks.append(_Block(start, stop, first, last, band.to(device)))
    return blocks


def _coefficients(inputs: int, outputs: int, resample: int) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """Which inputs each output sums, from and to, and their coefficients ``(outputs, taps)``, as Pillow rounds them."""
    weigh, support = _FILTERS[resample]
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    reach = support * stretch
    bounds = []
    coefficients = torch.zeros(outputs, math.ceil(reach) * 2 + 1, dtype=torch.float64)
    for output in range(outputs):
        center = (output + 0.5) * scale
        first = max(int(center - reach + 0.5), 0)
        last = min(int(center + reach + 0.5), inputs)
        weights = [weigh((place - center + 0.5) * (1.0 / stretch)) for place in range(first, last)]
        total = 0.0
        for weight in weights:  # sum() compensates for rounding, Pillow does not
            total += weight
        if total != 0:
            weights = [weight / total for weight in weights]
        whole = [int(weight * 2**_PRECISION_BITS + math.copysign(0.5, weight)) for weight in weights]
        coefficients[output, : last - first] = torch.tensor(whole, dtype=torch.float64) / 2**_PRECISION_BITS
        bounds.append((first, last))
    return bounds, coefficients
