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

from monai_medpruner.data.volume_meta import append_note, range_depth
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

    Raises:
        SettingsError: ``max_slices``, ``rule`` or ``ratio`` is not as described.
    """

    def __init__(
        self, max_slices: int | None = None, rule: str = "linspace", spatial_dim: int = -1, ratio: float | None = None
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
        self.max_slices = max_slices
        self.rule = rule
        self.ratio = ratio

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
            limits.append(max(1, int(Fraction(repr(float(self.ratio))) * range_depth(meta, depth))))
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
    ) -> None:
        super().__init__(keys, SliceLimit(max_slices, rule, spatial_dim, ratio), ref_key, allow_missing_keys)


SliceLimitD = SliceLimitDict = SliceLimitd
