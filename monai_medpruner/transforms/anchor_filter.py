# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""Inter-slice anchor-based filtering (IAF): drop the slices that differ little from the last kept one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isfinite

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.utils import convert_to_tensor

from ..errors import SettingsError
from .anchor_rule import anchor_slices
from .slice_selection import SliceSelection, SliceSelectiond, fill_from_anchor

__all__ = [
    "InterSliceAnchorFilter",
    "InterSliceAnchorFilterD",
    "InterSliceAnchorFilterDict",
    "InterSliceAnchorFilterd",
]


class InterSliceAnchorFilter(SliceSelection):
    r"""Keep a slice when it differs enough from the last kept slice (MedPruner, arXiv:2603.11625, eq. 2).

    The first slice :math:`I_1` is kept and is the anchor. Slice :math:`I_t` is kept, and becomes the anchor, when

    .. math:: \frac{1}{C H W} \sum |I_t - I_{\mathrm{anchor}}| > \gamma

    over all pixels and channels. Decisions are exact, see :func:`~.anchor_rule.anchor_slices`: those of a loop in
    float64, on any layout and device; a step of exactly γ is not greater. Metadata: see
    :class:`~.slice_selection.SliceSelection`. ``inverse`` fills each dropped slice from the anchor that stood for it.

    Args:
        threshold: γ, in the units of the image, at least 0. The default is for intensities in [0, 1]; the paper's
            released code uses 0.05 on [-1, 1], which is the same. None or ``"none"`` keeps every slice.
        spatial_dim: slice axis among the spatial axes, channel excluded; negative values count from the last.

    Raises:
        SettingsError: ``threshold`` or ``spatial_dim`` is not as described.
        NonFiniteVoxelsError: when called on a volume with NaN or infinite voxels.
    """

    def __init__(self, threshold: float | str | None = 0.025, spatial_dim: int = -1) -> None:
        super().__init__(spatial_dim)
        self.threshold: float | None = None
        if threshold is None or threshold == "none":
            return
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise SettingsError(f"threshold must be a number, None or 'none', got {threshold!r}.")
        if not isfinite(threshold) or threshold < 0:
            raise SettingsError(f"threshold must be finite and at least 0, got {threshold}.")
        self.threshold = float(threshold)

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices of the kept slices, ascending, always with 0.

        Args:
            image: channel-first volume, ``(C, H, W, D)`` with the default ``spatial_dim``; any dtype.

        Raises:
            NonFiniteVoxelsError: the volume holds NaN or infinite voxels.
        """
        axis = self.slice_axis(image)
        if self.threshold is None:
            return list(range(image.shape[axis]))
        return anchor_slices(convert_to_tensor(image, track_meta=False), axis, self.threshold)

    def fill(self, image: torch.Tensor, kept: Sequence[int], depth: int, axis: int) -> torch.Tensor:
        """Fill each dropped slice from the last kept slice before it: the anchor that stood for it."""
        return fill_from_anchor(image, kept, depth, axis)


class InterSliceAnchorFilterd(SliceSelectiond):
    """Dictionary-based wrapper of :class:`InterSliceAnchorFilter`: every key keeps the slices chosen on one of them.

    Args:
        keys: volumes of equal depth, e.g. image and label.
        threshold: see :class:`InterSliceAnchorFilter`.
        spatial_dim: see :class:`InterSliceAnchorFilter`.
        ref_key: key on which slices are chosen; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys; the reference key may be absent only where all are.
    """

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float | str | None = 0.025,
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, InterSliceAnchorFilter(threshold, spatial_dim), ref_key, allow_missing_keys)


InterSliceAnchorFilterD = InterSliceAnchorFilterDict = InterSliceAnchorFilterd
