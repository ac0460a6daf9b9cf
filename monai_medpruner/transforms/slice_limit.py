# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep at most a number of slices, evenly sampled."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor

from monai_medpruner.data.volume_meta import append_note, positions_from_affine, range_depth
from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_selection import SliceSelection, SliceSelectiond

__all__ = ["SliceLimit", "SliceLimitD", "SliceLimitDict", "SliceLimitd"]

_RULES = ("linspace", "medgemma")


class SliceLimit(SliceSelection):
    """Keep at most ``max_slices`` slices, evenly sampled; meant to run after the inter-slice anchor filter.

    A volume of n slices is left as it is where n is not above k: ``max_slices``, or the share ``ratio`` of the slices
    that it had before any was dropped, whichever is smaller. Where it is, slices are taken by one of the rules of the
    models' makers, and ``meta["notes"]`` says so:

    - "linspace" (Hulu-Med): ``np.linspace(0, n - 1, k, dtype=int)``, first and last slice among them, positions between
      slices rounded down.
    - "medgemma" (Google's CT notebook for MedGemma 1.5): ``round(i / k * (n - 1))`` for i = 1 ... k with Python's
      rounding (halves to even): never the first slice, always the last.

    Metadata and inverse: see :class:`~.slice_selection.SliceSelection`; slices that were not taken come back as zeros.

    Args:
        max_slices: limit of at least 1; None sets none.
        rule: "linspace" or "medgemma".
        spatial_dim: slice axis among the spatial axes, channel excluded.
        ratio: share in ``(0, 1]`` of the slices of the range that was chosen, see :class:`~.slice_range.SliceRange`,
            or of the whole volume; rounded down, and at least one slice. None sets no such limit.
        max_gap_mm: ``ratio`` allows as many more slices as it takes for evenly spaced ones to be no further apart than
            this, between centers, or all where they are further apart themselves; above 0. None bounds nothing.

    Raises:
        SettingsError: ``max_slices``, ``rule``, ``ratio`` or ``max_gap_mm`` is not as described.
    """

    def __init__(
        self,
        max_slices: int | None = None,
        rule: str = "linspace",
        spatial_dim: int = -1,
        ratio: float | None = None,
        max_gap_mm: float | None = None,
    ) -> None:
        super().__init__(spatial_dim)
        if max_slices is not None and (
            isinstance(max_slices, bool) or not isinstance(max_slices, int) or max_slices < 1
        ):
            raise SettingsError(f"max_slices must be an integer of at least 1, or None, got {max_slices!r}.")
        if rule not in _RULES:
            raise SettingsError(f"the rule must be one of {list(_RULES)}, got {rule!r}.")
        if ratio is not None and (isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1):
            raise SettingsError(f"ratio must lie in (0, 1], or be None, got {ratio!r}.")
        if max_gap_mm is not None and (
            isinstance(max_gap_mm, bool) or not isinstance(max_gap_mm, (int, float)) or not max_gap_mm > 0
        ):
            raise SettingsError(f"max_gap_mm must be above 0, or None, got {max_gap_mm!r}.")
        self.max_slices = max_slices
        self.rule = rule
        self.ratio = ratio
        self.max_gap_mm = max_gap_mm

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices of the slices that are taken.

        Args:
            image: channel-first volume.
        """
        depth = image.shape[self.slice_axis(image)]
        limit = self._limit(image, depth)
        if depth <= limit:
            return list(range(depth))
        if self.rule == "linspace":
            return np.linspace(0, depth - 1, limit, dtype=int).tolist()
        return [round(i / limit * (depth - 1)) for i in range(1, limit + 1)]

    def _limit(self, image: NdarrayOrTensor, depth: int) -> int:
        """How many slices may be taken; ``depth`` where there is no limit."""
        limits = [depth if self.max_slices is None else self.max_slices]
        if self.ratio is not None:
            meta = image.meta if isinstance(image, MetaTensor) else {}
            # the share as it is written: 0.29 of 100 slices are 29
            least = max(1, int(Fraction(repr(float(self.ratio))) * range_depth(meta, depth)))
            positions = slice_positions(image, self.slice_axis(image))
            limits.append(slices_for_gap(positions, least, self.max_gap_mm))
        return min(limits)

    def select(
        self, img: NdarrayOrTensor, kept: Sequence[int], distances: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Keep the slices ``kept`` of ``img``, and note it where there were more."""
        depth = img.shape[self.slice_axis(img)]
        out = super().select(img, kept, distances)
        if len(kept) < depth and isinstance(out, MetaTensor):
            limited_by = "max_slices" if self._limit(img, depth) == self.max_slices else "slice_ratio"
            append_note(out.meta, f"{depth} slices passed the filter, {len(kept)} of them were taken ({limited_by}).")
        return out


def slices_for_gap(positions: Sequence[float], least: int, max_gap_mm: float | None) -> int:
    """Return how many evenly spaced slices it takes, from ``least`` on, for none to be too far from the next.

    Args:
        positions: of the slices along their axis in mm.
        least: number to begin with.
        max_gap_mm: largest distance between the centers of neighbors; None bounds nothing.

    Returns:
        The smallest such number, all slices where there is none, or ``least`` without a bound.
    """
    depth = len(positions)
    if max_gap_mm is None or depth <= least:
        return least
    # spacings are rounded in files: half a micrometer is no gap
    reach = max_gap_mm + 5e-4
    places = np.asarray(positions, dtype=float)
    for count in range(max(2, least), depth):
        if np.abs(np.diff(places[np.linspace(0, depth - 1, count, dtype=int)])).max() <= reach:
            return count
    return depth


def slice_positions(image: NdarrayOrTensor, axis: int) -> Sequence[float]:
    """Return the positions of the slices of a volume in mm, by its metadata or its affine; else they are 1 mm apart.

    Args:
        image: ``(C, H, W, D)`` with the slices along ``axis``.
        axis: channel counted.
    """
    depth = image.shape[axis]
    if isinstance(image, MetaTensor):
        if len(positions := image.meta.get("slice_positions_mm", ())) == depth:
            return [float(one) for one in positions]
        if axis < image.affine.shape[-1]:
            return positions_from_affine(image.affine, axis - 1, depth)
    return [float(one) for one in range(depth)]


class SliceLimitd(SliceSelectiond):
    """Dictionary-based wrapper of :class:`SliceLimit`.

    Args:
        keys: volumes of equal depth.
        max_slices: see :class:`SliceLimit`.
        rule: see :class:`SliceLimit`.
        spatial_dim: see :class:`SliceLimit`.
        ref_key: key whose depth counts; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys.
        ratio: see :class:`SliceLimit`.
        max_gap_mm: see :class:`SliceLimit`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        max_slices: int | None = None,
        rule: str = "linspace",
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
        ratio: float | None = None,
        max_gap_mm: float | None = None,
    ) -> None:
        array_form = SliceLimit(max_slices, rule, spatial_dim, ratio, max_gap_mm)
        super().__init__(keys, array_form, ref_key, allow_missing_keys)


SliceLimitD = SliceLimitDict = SliceLimitd
