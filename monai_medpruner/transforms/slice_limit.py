# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep at most a number of slices, evenly sampled."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor

from monai_medpruner.data.volume_meta import append_note
from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_selection import SliceSelection, SliceSelectiond

__all__ = ["SliceLimit", "SliceLimitD", "SliceLimitDict", "SliceLimitd"]

_RULES = ("linspace", "medgemma")


class SliceLimit(SliceSelection):
    """Keep at most ``max_slices`` slices, evenly sampled; meant to run after the inter-slice anchor filter.

    A volume of n slices is left as it is where n is not above k = ``max_slices``. Where it is, slices are taken by one
    of the rules of the models' makers, and ``meta["notes"]`` says so:

    - "linspace" (Hulu-Med): ``np.linspace(0, n - 1, k, dtype=int)``, first and last slice among them, positions between
      slices rounded down.
    - "medgemma" (Google's CT notebook for MedGemma 1.5): ``round(i / k * (n - 1))`` for i = 1 ... k with Python's
      rounding (halves to even): never the first slice, always the last.

    Metadata and inverse: see :class:`~.slice_selection.SliceSelection`; slices that were not taken come back as zeros.

    Args:
        max_slices: limit of at least 1; None sets none.
        rule: "linspace" or "medgemma".
        spatial_dim: slice axis among the spatial axes, channel excluded.

    Raises:
        SettingsError: ``max_slices`` or ``rule`` is not as described.
    """

    def __init__(self, max_slices: int | None = None, rule: str = "linspace", spatial_dim: int = -1) -> None:
        super().__init__(spatial_dim)
        if max_slices is not None and (
            isinstance(max_slices, bool) or not isinstance(max_slices, int) or max_slices < 1
        ):
            raise SettingsError(f"max_slices must be an integer of at least 1, or None, got {max_slices!r}.")
        if rule not in _RULES:
            raise SettingsError(f"the rule must be one of {list(_RULES)}, got {rule!r}.")
        self.max_slices = max_slices
        self.rule = rule

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices of the slices that are taken.

        Args:
            image: channel-first volume.
        """
        depth, limit = image.shape[self.slice_axis(image)], self.max_slices
        if limit is None or depth <= limit:
            return list(range(depth))
        if self.rule == "linspace":
            return np.linspace(0, depth - 1, limit, dtype=int).tolist()
        return [round(i / limit * (depth - 1)) for i in range(1, limit + 1)]

    def select(
        self, img: NdarrayOrTensor, kept: Sequence[int], distances: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Keep the slices ``kept`` of ``img``, and note it where there were more."""
        depth = img.shape[self.slice_axis(img)]
        out = super().select(img, kept, distances)
        if len(kept) < depth and isinstance(out, MetaTensor):
            append_note(out.meta, f"{depth} slices passed the filter, {len(kept)} of them were taken (max_slices).")
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
    """

    def __init__(
        self,
        keys: KeysCollection,
        max_slices: int | None = None,
        rule: str = "linspace",
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, SliceLimit(max_slices, rule, spatial_dim), ref_key, allow_missing_keys)


SliceLimitD = SliceLimitDict = SliceLimitd
