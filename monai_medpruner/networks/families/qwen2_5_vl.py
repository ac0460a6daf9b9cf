# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen2.5-VL: the geometry of the Qwen-VL generations behind an encoder that attends in windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers.vision_utils import get_vision_window_index

from monai_medpruner.networks.families.base import EncodedSlices, FamilySummary
from monai_medpruner.networks.families.qwen_geometry import QwenGeometry

__all__ = ["Qwen25VLFamily"]


class Qwen25VLFamily(QwenGeometry):
    """Qwen2.5-VL (``Qwen2_5_VLForConditionalGeneration``), on which Lingshu-7B and -32B are built.

    Most of the encoder's blocks attend within windows, some to the whole slice; only the latter say how much attention
    a patch receives from its slice. Inside the encoder the merge groups of a slice lie window by window, whatever the
    block.
    """

    model_types = ("qwen2_5_vl",)
    summary = FamilySummary(
        serves="Qwen2.5-VL, Lingshu-7B and -32B",
        merge="2×2 merge group, window order undone",
        positions="original, M-RoPE",
        scored_layer="last full-attention",
    )

    @property
    def whole_slice_blocks(self) -> Sequence[int]:
        """The full-attention blocks; in the released models the last block is one."""
        full = self._vision.fullatt_block_indexes
        return [index for index in range(len(self._vision.blocks)) if index in full]

    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patches lie group by group, and the groups window by window."""
        return super().group_patches(patches, grid)[..., self._from_windows(grid).to(patches.device), :]

    def inside_inputs(self, inputs: dict[str, Any], inside: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Whole merge groups in the windows of the whole grid; a window without any of them is no segment."""
        order: list[torch.Tensor] = []
        lengths: list[torch.Tensor] = []
        start = 0
        for grid, kept in zip(self.token_grids(inputs), inside, strict=True):
            places = self._from_windows(grid)
            among = kept[places.argsort()]  # window by window
            order.append((kept.cumsum(0) - 1)[places.argsort()[among]] + start)
            lengths.append(torch.bincount(self._windows(grid)[among]))
            start += int(kept.sum())
        windows = torch.cat(lengths)
        segments = (windows[windows > 0] * self.patches_per_token).cumsum(0)
        device = inputs["pixel_values"].device
        return {
            **super().inside_inputs(inputs, inside),
            "image_window_index": torch.cat(order).to(device),
            "image_cu_window_seqlens": torch.nn.functional.pad(segments, (1, 0)).int().to(device),
        }

    def inside_patches(self, inside: torch.Tensor, grid: tuple[int, int], patches_per_token: int) -> torch.Tensor:
        """Window by window."""
        return super().inside_patches(inside[self._from_windows(grid).argsort()], grid, patches_per_token)

    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        """The model puts the tokens back in their order, but not the groups before the merger."""
        encoded = super().encode(images)
        if "image_window_index" in images:
            order = images["image_window_index"].argsort()
            groups = torch.cat(encoded.encoder_tokens)[order]
            encoded.encoder_tokens = list(groups.split([len(one) for one in encoded.tokens]))
            return encoded
        encoded.encoder_tokens = [
            groups[self._from_windows(grid).to(groups.device)]
            for groups, grid in zip(encoded.encoder_tokens, self.token_grids(images), strict=True)
        ]
        return encoded

    def _from_windows(self, grid: tuple[int, int]) -> torch.Tensor:
        """Return the place in window order of each token of a slice, int64 ``(N,)``."""
        vision = self._vision
        return _window_places(grid, vision.spatial_merge_size, vision.window_size, vision.patch_size)[0]

    def _windows(self, grid: tuple[int, int]) -> torch.Tensor:
        """Return the number of the window of each token in window order, int64 ``(N,)``."""
        vision = self._vision
        return _window_places(grid, vision.spatial_merge_size, vision.window_size, vision.patch_size)[1]


@lru_cache(maxsize=64)  # the slices of a volume have few sizes
def _window_places(
    grid: tuple[int, int], merge: int, window_size: int, patch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    window_index, segments = get_vision_window_index(
        torch.tensor([[1, grid[0] * merge, grid[1] * merge]]),
        spatial_merge_size=merge,
        window_size=window_size,
        patch_size=patch_size,
    )
    lengths = segments.diff() // merge**2
    return window_index.argsort(), torch.arange(len(lengths)).repeat_interleave(lengths)
