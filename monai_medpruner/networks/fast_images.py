# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What image processors make of a volume's slices, computed in batches and equal to it bit for bit.

The stock processors take one RGB image at a time. Here a gray slice is one plane, not three; slices are normalized in
batches on the model's device and written where the model reads them. Settings are read from the processor, and what
rescaling and normalizing do to the 256 gray levels is what the processor's own methods do to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from monai_medpruner.networks.pil_resize import resize_levels
from monai_medpruner.networks.slice_images import checked_voxels, slice_levels

__all__ = ["FAST_PROCESSORS", "fast_image_inputs"]

_CHANNELS = 3
# pixels of all channels, before or after resizing, that are worked on at once
_CPU_PIXELS = 2**22
_GPU_PIXELS = 2**25


class _Layout(Protocol):
    """How a processor lays out the normalized pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width after resizing."""

    def empty(self, slices: int, planes: int, device: torch.device) -> torch.Tensor:
        """Room for the pixels of some slices; ``planes`` is 1 where all channels are equal, else 3."""

    def write(self, room: torch.Tensor, start: int, levels: torch.Tensor, normalization: _Normalization) -> None:
        """Put slices ``(N, C, H, W)`` of gray levels into the room, from slice ``start`` on."""

    def inputs(self, room: torch.Tensor, slices: int) -> dict[str, torch.Tensor]:
        """The filled room and whatever else the processor returns."""


def fast_image_inputs(
    processor: Any, volume: torch.Tensor, device: torch.device, size: Mapping[str, int] | None = None
) -> dict[str, torch.Tensor] | None:
    """Compute what an image processor returns for the slices of a volume.

    Args:
        processor: a processor of transformers that works on PIL images.
        volume: ``(C, H, W, D)``, C being 1 or 3, intensities in [0, 1].
        device: where slices are normalized, and where the result is.
        size: in place of the processor's own ``size``.

    Returns:
        The processor's output, with the same names, shapes, types and values. Channels of a gray volume that are
        normalized alike share their memory. None where the processor, or a setting of it, is not known: the stock
        processor is to be used then.

    Raises:
        IntensityUnitsError: intensities lie outside [0, 1].
    """
    find_layout = FAST_PROCESSORS.get(type(processor).__name__)
    if find_layout is None:
        return None
    height, width, count = volume.shape[1:]
    fields = {name: edge for name, edge in dict(size or processor.size).items() if edge is not None}
    layout = find_layout(processor, (height, width), fields)
    normalization = _Normalization.of(processor, device)
    if layout is None or normalization is None:
        return None
    voxels = checked_voxels(volume)
    room = layout.empty(count, 1 if len(voxels) == 1 and normalization.gray else _CHANNELS, device)
    pixels = len(voxels) * max(height * width, layout.size[0] * layout.size[1])
    batch = max(4, (_CPU_PIXELS if device.type == "cpu" else _GPU_PIXELS) // pixels)
    resample = int(processor.resample)
    for start in range(0, count, batch):
        levels = slice_levels(voxels[..., start : start + batch]).to(device)
        resized = resize_levels(levels.flatten(0, 1), layout.size, resample).unflatten(0, levels.shape[:2])
        layout.write(room, start, resized, normalization)
    return layout.inputs(room, count)


@dataclass(frozen=True)
class _Normalization:
    """What a processor's rescaling and normalizing make of gray levels.

    Args:
        table: the values of the 256 levels in each channel, ``(3, 256)``, float32.
        steps: divisors and subtrahends of each channel, ``level / divisor - subtrahend``, over a last divisor or not,
            which give the same values; None where none do.
        gray: whether all channels have the same values.
    """

    table: torch.Tensor
    steps: tuple[tuple[float, ...], ...] | None
    gray: bool

    @classmethod
    def of(cls, processor: Any, device: torch.device) -> _Normalization | None:
        """Let a processor's own methods work on the 256 levels; None where they do not give float32."""
        levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (_CHANNELS, 1, 256))
        values = levels
        if processor.do_rescale:
            values = processor.rescale(values, processor.rescale_factor)
        if processor.do_normalize:
            values = processor.normalize(values, processor.image_mean, processor.image_std)
        if values.dtype != np.float32:
            return None
        table = torch.from_numpy(np.ascontiguousarray(values[:, 0])).to(device)
        gray = bool((table == table[0]).all())
        divisor = 1 / processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
        pairs = [(float(one), float(other)) for one, other in zip(_each(mean), _each(std), strict=True)]
        fewer = tuple((divisor * other, one / other) for one, other in pairs)  # the same where ``std`` is 0.5
        for steps in (fewer, tuple((divisor, *pair) for pair in pairs)):
            candidate = cls(table, steps, gray)
            found = torch.empty_like(table)[None]
            candidate(torch.arange(256, dtype=torch.uint8, device=device)[None, None], found)
            if torch.equal(found[0], table):
                return candidate
        return cls(table, None, gray)

    def __call__(self, levels: torch.Tensor, values: torch.Tensor) -> None:
        """Fill ``values`` with those of ``levels``, both ``(N, 1 or 3, ...)``; a single plane serves all channels."""
        for number in range(len(values)):  # one plane at a time stays in the cache
            for channel in range(values.shape[1]):
                self._fill(channel, levels[number, min(channel, levels.shape[1] - 1)], values[number, channel])

    def _fill(self, channel: int, levels: torch.Tensor, values: torch.Tensor) -> None:
        if self.steps is None:
            values.copy_(self.table[channel][levels.int()])
            return
        divisor, subtrahend, *last = self.steps[channel]
        values.copy_(levels).div_(divisor).sub_(subtrahend)
        for one in last:
            values.div_(one)


def _empty(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Room for float32; on a CPU NumPy's, which asks for huge pages, because touching small ones costs much time."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, device=device)


def _each(value: Any) -> tuple[Any, ...]:
    """A setting of each channel; a single number holds for all."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * _CHANNELS


@dataclass(frozen=True)
class _WholeImages:
    """Slices of a fixed size, ``(N, 3, H, W)``, and a number of further images cut from each, always the same here."""

    size: tuple[int, int]
    counted: tuple[str, int]

    def empty(self, slices: int, planes: int, device: torch.device) -> torch.Tensor:
        return _empty((slices, planes, *self.size), device)

    def write(self, room: torch.Tensor, start: int, levels: torch.Tensor, normalization: _Normalization) -> None:
        normalization(levels, room[start : start + len(levels)])

    def inputs(self, room: torch.Tensor, slices: int) -> dict[str, torch.Tensor]:
        name, number = self.counted
        counts = torch.full((slices,), number, dtype=torch.int64, device=room.device)
        return {"pixel_values": room.expand(-1, _CHANNELS, -1, -1), name: counts}


@dataclass(frozen=True)
class _Patches:
    """Flat patches, merge group by merge group, the same pixels for each frame of a patch."""

    size: tuple[int, int]
    patch: int
    merge: int
    frames: int
    merge_sizes: bool

    @property
    def grid(self) -> tuple[int, int]:
        return self.size[0] // self.patch, self.size[1] // self.patch

    def empty(self, slices: int, planes: int, device: torch.device) -> torch.Tensor:
        rows, columns = self.grid
        return _empty((slices, rows * columns, _CHANNELS, self.frames, self.patch**2), device)

    def write(self, room: torch.Tensor, start: int, levels: torch.Tensor, normalization: _Normalization) -> None:
        cells = (-1, self.merge, self.patch)
        planes = 1 if levels.shape[1] == 1 and normalization.gray else _CHANNELS
        values = torch.empty(1, planes, room.shape[1], self.patch**2, device=room.device)
        for number, one in enumerate(levels, start):  # one slice at a time stays in the cache
            split = one.unflatten(2, cells).unflatten(1, cells)
            # channel, (row, in group, pixel), (column, in group, pixel)
            ordered = split.permute(0, 1, 4, 2, 5, 3, 6).reshape(1, len(one), -1, self.patch**2)
            normalization(ordered, values)
            room[number] = values[0].transpose(0, 1)[:, :, None]

    def inputs(self, room: torch.Tensor, slices: int) -> dict[str, torch.Tensor]:
        inputs = {
            "pixel_values": room.flatten(0, 1).flatten(1),
            "image_grid_thw": torch.tensor([[1, *self.grid]], device=room.device).repeat(slices, 1),
        }
        if self.merge_sizes:
            inputs["image_merge_sizes"] = torch.full((slices,), self.merge, device=room.device)
        return inputs


def _gemma3(processor: Any, before: tuple[int, int], size: dict[str, int]) -> _Layout | None:
    return None if processor.do_pan_and_scan else _whole_images(processor, before, size, ("num_crops", 0))


def _got_ocr2(processor: Any, before: tuple[int, int], size: dict[str, int]) -> _Layout | None:
    cropped = processor.crop_to_patches and processor.max_patches > 1
    return None if cropped else _whole_images(processor, before, size, ("num_patches", 1))


def _whole_images(
    processor: Any, before: tuple[int, int], size: dict[str, int], counted: tuple[str, int]
) -> _Layout | None:
    if not processor.do_resize:
        return _WholeImages(before, counted)
    return _WholeImages((size["height"], size["width"]), counted) if size.keys() == {"height", "width"} else None


def _qwen2_vl(processor: Any, before: tuple[int, int], size: dict[str, int]) -> _Layout | None:
    return _patches(processor, before, size, merge_sizes=False)


def _video_llama3(processor: Any, before: tuple[int, int], size: dict[str, int]) -> _Layout | None:
    return _patches(processor, before, size, merge_sizes=True)


def _patches(processor: Any, before: tuple[int, int], size: dict[str, int], *, merge_sizes: bool) -> _Layout | None:
    cell = processor.patch_size * processor.merge_size
    after = before
    if processor.do_resize:
        if size.keys() != {"shortest_edge", "longest_edge"}:
            return None
        after = smart_resize(*before, cell, size["shortest_edge"], size["longest_edge"])
    if after[0] % cell or after[1] % cell:
        return None
    return _Patches(after, processor.patch_size, processor.merge_size, processor.temporal_patch_size, merge_sizes)


#: by the class name of an image processor: what finds the layout of its output, from the processor, the slices' height
#: and width and its fields of ``size``; None where a setting is not known
FAST_PROCESSORS: dict[str, Callable[[Any, tuple[int, int], dict[str, int]], _Layout | None]] = {
    "Gemma3ImageProcessorPil": _gemma3,
    "GotOcr2ImageProcessorPil": _got_ocr2,
    "Qwen2VLImageProcessorPil": _qwen2_vl,
    "VideoLlama3ImageProcessorPil": _video_llama3,
}
