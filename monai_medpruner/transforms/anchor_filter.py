# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Inter-slice anchor-based filtering (IAF): drop the slices that differ little from the last kept one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import copy
from math import isfinite

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import Compose

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_rules.anchor import AnchorRule
from monai_medpruner.transforms.slice_rules.base import SliceChoice, SliceStack
from monai_medpruner.transforms.slice_selection import SliceSelection, SliceSelectiond, fill_from_anchor

__all__ = [
    "InterSliceAnchorFilter",
    "InterSliceAnchorFilterD",
    "InterSliceAnchorFilterDict",
    "InterSliceAnchorFilterd",
    "with_threshold",
]


class InterSliceAnchorFilter(SliceSelection):
    r"""Keep a slice when it differs enough from the last kept slice (MedPruner, arXiv:2603.11625, eq. 2).

    The first slice :math:`I_1` is kept and is the anchor. Slice :math:`I_t` is kept, and becomes the anchor, when

    .. math:: \frac{1}{C H W} \sum |I_t - I_{\mathrm{anchor}}| > \gamma

    over all pixels and channels. Decisions are exact, see :func:`~.anchor_rule.anchor_slices`: those of a loop in
    float64, on any layout and device; a step of exactly γ is not greater. ``inverse`` fills each dropped slice from the
    anchor that stood for it.

    Metadata: see :class:`~.slice_selection.SliceSelection`. ``meta["slice_distances"]`` has one value for every slice
    of the source volume: its distance to the anchor that it was compared with, see
    :class:`~.anchor_rule.AnchoredSlices`, or NaN for a slice that an earlier selection dropped. The key is absent where
    no filter with a threshold ran.

    A small lesion hardly moves the mean of a whole slice. With ``guard_mm`` set, slice :math:`I_t` is also kept when

    .. math:: \max_{c, B} \Big| \frac{1}{|B|} \sum_{p \in B} (I_t - I_{\mathrm{anchor}})_{c, p} \Big| > g

    over channels :math:`c` and the square blocks :math:`B` that tile the slice from its first pixel; blocks cut off by
    the far edges count with the pixels that they hold. Block means are float64 and not exact at a tie. Every slice is
    then compared pixel by pixel, which takes longer than the mean alone.

    Nothing in eq. 2 bounds the stretch that is skipped. With ``max_gap_mm`` set, slice :math:`I_t` is also kept, and
    becomes the anchor, when slice :math:`I_{t+1}` would be farther from the anchor than that, from center to center, by
    the real positions (uneven gaps, gantry tilt). The last slice of the volume counts as kept. Then every ball of that
    diameter inside the stack meets a kept slice. A larger gap in the source itself is noted in ``meta["notes"]``.

    Args:
        threshold: γ, in the units of the image, at least 0. The default is for intensities in [0, 1]; the paper's
            released code uses 0.05 on [-1, 1], which is the same. None keeps every slice.
        spatial_dim: slice axis among the spatial axes, channel excluded; negative values count from the last.
        guard_mm: side of a block in mm, above 0: along either axis of a slice, as many pixels as come nearest, at least
            one. The spacing is that of the MetaTensor's affine, else 1 mm. None is no guard.
        guard_threshold: :math:`g`, in the units of the image, above 0.
        max_gap_mm: largest distance between the centers of kept slices in mm, above 0. Positions are those of the
            MetaTensor's metadata and affine, else 1 mm apart. None sets no bound, as in the paper.

    Raises:
        SettingsError: an argument is not as described.
        NonFiniteVoxelsError: when called on a volume with NaN or infinite voxels.
        VolumeShapeError: with a guard, when called on a volume that has not three spatial axes.
        SpacingError: with a guard, when called on a volume whose affine is not finite.
    """

    def __init__(
        self,
        threshold: float | None = 0.025,
        spatial_dim: int = -1,
        guard_mm: float | None = None,
        guard_threshold: float = 0.25,
        max_gap_mm: float | None = None,
    ) -> None:
        super().__init__(spatial_dim)
        self.max_gap_mm = None if max_gap_mm is None else _positive("max_gap_mm", max_gap_mm, " or None")
        self.guard_mm = None if guard_mm is None else _positive("guard_mm", guard_mm, " or None")
        self.guard_threshold = _positive("guard_threshold", guard_threshold)
        self.threshold = _threshold(threshold)

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices of the kept slices, ascending, always with 0.

        Args:
            image: channel-first volume, ``(C, H, W, D)`` with the default ``spatial_dim``; any dtype.

        Raises:
            NonFiniteVoxelsError: the volume holds NaN or infinite voxels.
            VolumeShapeError: there is a guard, and the volume has not three spatial axes.
            SpacingError: there is a guard, and the volume's affine is not finite.
        """
        return self.choose(image).kept

    def choose(self, image: NdarrayOrTensor) -> SliceChoice:
        """Return :meth:`kept_slices`, and the distance of every slice to its anchor; None without a threshold."""
        rule = AnchorRule(self.threshold, self.max_gap_mm, self.guard_mm, self.guard_threshold)
        return rule.choose(SliceStack.from_volume(image, self.slice_axis(image)))

    def with_threshold(self, threshold: float | None) -> InterSliceAnchorFilter:
        """Return a copy with another threshold and everything else the same.

        Args:
            threshold: see the class.

        Raises:
            SettingsError: ``threshold`` is not as described.
        """
        changed = copy(self)
        changed.threshold = _threshold(threshold)
        return changed

    def fill(self, image: torch.Tensor, kept: Sequence[int], depth: int, axis: int) -> torch.Tensor:
        """Fill each dropped slice from the last kept slice before it: the anchor that stood for it."""
        return fill_from_anchor(image, kept, depth, axis)


def _threshold(value: object) -> float | None:
    """A threshold: a finite number of at least 0, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(f"threshold must be a number, or None to keep every slice, got {value!r}.")
    if not isfinite(value) or value < 0:
        raise SettingsError(f"threshold must be finite and at least 0, got {value}.")
    return float(value)


def _positive(name: str, value: object, alternative: str = "") -> float:
    """A setting that must be a finite number above 0; ``alternative`` is what the message also offers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value <= 0:
        raise SettingsError(f"{name} must be a finite number above 0{alternative}, got {value!r}.")
    return float(value)


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
        max_gap_mm: see :class:`InterSliceAnchorFilter`.
    """

    array_form: InterSliceAnchorFilter

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float | None = 0.025,
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
        guard_mm: float | None = None,
        guard_threshold: float = 0.25,
        max_gap_mm: float | None = None,
    ) -> None:
        array_form = InterSliceAnchorFilter(threshold, spatial_dim, guard_mm, guard_threshold, max_gap_mm)
        super().__init__(keys, array_form, ref_key, allow_missing_keys)

    def with_threshold(self, threshold: float | None) -> InterSliceAnchorFilterd:
        """Return a copy with another threshold and everything else the same.

        Args:
            threshold: see :class:`InterSliceAnchorFilter`.

        Raises:
            SettingsError: ``threshold`` is not as described.
        """
        changed = copy(self)
        changed.array_form = self.array_form.with_threshold(threshold)
        return changed


def with_threshold(transform: Callable, threshold: float | None) -> Callable:
    """Return ``transform`` with another threshold of its slice filter; ``transform`` itself is not changed.

    Args:
        transform: a filter, in array or dictionary form, or a ``Compose`` that holds one at any depth. Every filter
            in it gets the threshold; transforms without one are shared with the copy.
        threshold: see :class:`InterSliceAnchorFilter`.

    Raises:
        SettingsError: there is no filter in ``transform``, or ``threshold`` is not as described.
    """
    changed = _replaced(transform, threshold)
    if changed is transform:
        raise SettingsError(f"{type(transform).__name__} has no InterSliceAnchorFilter whose threshold could be set.")
    return changed


def _replaced(transform: Callable, threshold: float | None) -> Callable:
    """A copy of ``transform`` with another threshold; ``transform`` itself where there is no filter in it."""
    if isinstance(transform, (InterSliceAnchorFilter, InterSliceAnchorFilterd)):
        return transform.with_threshold(threshold)
    if not isinstance(transform, Compose):
        return transform
    children = [_replaced(child, threshold) for child in transform.transforms]
    if all(new is old for new, old in zip(children, transform.transforms, strict=True)):
        return transform
    changed = copy(transform)
    changed.transforms = tuple(children)
    return changed


InterSliceAnchorFilterD = InterSliceAnchorFilterDict = InterSliceAnchorFilterd
