# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Inter-slice anchor-based filtering (IAF): drop the slices that differ little from the last kept one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isfinite

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.utils import convert_to_tensor

from monai_medpruner.errors import SettingsError, SpacingError, VolumeShapeError
from monai_medpruner.transforms.anchor_rule import anchor_slices, guarded_slices
from monai_medpruner.transforms.slice_selection import SliceSelection, SliceSelectiond, fill_from_anchor

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

    A small lesion hardly moves the mean of a whole slice. With ``guard_mm`` set, slice :math:`I_t` is also kept when

    .. math:: \max_{c, B} \Big| \frac{1}{|B|} \sum_{p \in B} (I_t - I_{\mathrm{anchor}})_{c, p} \Big| > g

    over channels :math:`c` and the square blocks :math:`B` that tile the slice from its first pixel; blocks cut off by
    the far edges count with the pixels that they hold. Block means are float64 and not exact at a tie. Every slice is
    then compared pixel by pixel, which takes longer than the mean alone.

    Args:
        threshold: γ, in the units of the image, at least 0. The default is for intensities in [0, 1]; the paper's
            released code uses 0.05 on [-1, 1], which is the same. None or ``"none"`` keeps every slice.
        spatial_dim: slice axis among the spatial axes, channel excluded; negative values count from the last.
        guard_mm: side of a block in mm, above 0: along either axis of a slice, as many pixels as come nearest, at least
            one. The spacing is that of the MetaTensor's affine, else 1 mm. None or ``"none"`` is no guard.
        guard_threshold: :math:`g`, in the units of the image, above 0.

    Raises:
        SettingsError: an argument is not as described.
        NonFiniteVoxelsError: when called on a volume with NaN or infinite voxels.
        VolumeShapeError: with a guard, when called on a volume that has not three spatial axes.
        SpacingError: with a guard, when called on a volume whose affine is not finite.
    """

    def __init__(
        self,
        threshold: float | str | None = 0.025,
        spatial_dim: int = -1,
        guard_mm: float | str | None = None,
        guard_threshold: float = 0.25,
    ) -> None:
        super().__init__(spatial_dim)
        self.guard_mm = None if guard_mm is None or guard_mm == "none" else _positive("guard_mm", guard_mm)
        self.guard_threshold = _positive("guard_threshold", guard_threshold)
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
            VolumeShapeError: there is a guard, and the volume has not three spatial axes.
            SpacingError: there is a guard, and the volume's affine is not finite.
        """
        axis = self.slice_axis(image)
        if self.threshold is None:
            return list(range(image.shape[axis]))
        voxels = convert_to_tensor(image, track_meta=False)
        if self.guard_mm is None:
            return anchor_slices(voxels, axis, self.threshold)
        block = _block_pixels(image, axis, self.guard_mm)
        return guarded_slices(voxels, axis, self.threshold, block, self.guard_threshold)

    def fill(self, image: torch.Tensor, kept: Sequence[int], depth: int, axis: int) -> torch.Tensor:
        """Fill each dropped slice from the last kept slice before it: the anchor that stood for it."""
        return fill_from_anchor(image, kept, depth, axis)


def _positive(name: str, value: object) -> float:
    """A setting that must be a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value <= 0:
        raise SettingsError(f"{name} must be a finite number above 0, got {value!r}.")
    return float(value)


def _block_pixels(image: NdarrayOrTensor, axis: int, side_mm: float) -> tuple[int, int]:
    """Pixels of a block of ``side_mm`` along either axis of a slice, at least one and at most the slice's.

    Args:
        image: (C, H, W, D) with D at ``axis``.
        axis: axis along which slices lie.
        side_mm: side of the block in mm.
    """
    if image.ndim != 4:
        raise VolumeShapeError(
            f"guard_mm needs a channel-first volume with three spatial axes, got shape {tuple(image.shape)}."
        )
    spacing = [1.0] * 3
    if isinstance(image, MetaTensor):
        spacing = affine_to_spacing(image.affine, r=3).tolist()
    if not all(map(isfinite, spacing)):
        raise SpacingError(f"guard_mm needs a finite spacing, the affine gives {spacing} mm: run CheckVolume first.")
    first, second = (
        max(1, round(min(side_mm / spacing[spatial], image.shape[spatial + 1])))
        for spatial in range(3)
        if spatial + 1 != axis
    )
    return first, second


class InterSliceAnchorFilterd(SliceSelectiond):
    """Dictionary-based wrapper of :class:`InterSliceAnchorFilter`: every key keeps the slices chosen on one of them.

    Args:
        keys: volumes of equal depth, e.g. image and label.
        threshold: see :class:`InterSliceAnchorFilter`.
        spatial_dim: see :class:`InterSliceAnchorFilter`.
        ref_key: key on which slices are chosen; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys; the reference key may be absent only where all are.
        guard_mm: see :class:`InterSliceAnchorFilter`.
        guard_threshold: see :class:`InterSliceAnchorFilter`.
    """

    selection: InterSliceAnchorFilter

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float | str | None = 0.025,
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
        guard_mm: float | str | None = None,
        guard_threshold: float = 0.25,
    ) -> None:
        selection = InterSliceAnchorFilter(threshold, spatial_dim, guard_mm, guard_threshold)
        super().__init__(keys, selection, ref_key, allow_missing_keys)


InterSliceAnchorFilterD = InterSliceAnchorFilterDict = InterSliceAnchorFilterd
