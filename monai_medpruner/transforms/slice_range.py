# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep a range of slices."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor

from monai_medpruner.data.volume_meta import append_note
from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_selection import SliceSelection, SliceSelectiond

__all__ = ["SliceRange", "SliceRangeD", "SliceRangeDict", "SliceRanged"]

_RANGE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*")


class SliceRange(SliceSelection):
    """Keep a range of slices, written as in Python: ``"40:120"`` is slices 40 to 119, counted from 0.

    Bounds may be left out or negative, and are clipped to the volume, as in Python; clipping is noted in
    ``meta["notes"]``. Where a range is given, ``meta["range_depth"]`` is its number of slices: what shares of the
    volume's slices and tokens are measured against. Metadata and inverse: see
    :class:`~.slice_selection.SliceSelection`; slices outside the range come back as zeros.

    Args:
        slices: ``"start:stop"``; None or ``"all"`` keeps all slices.
        spatial_dim: slice axis among the spatial axes, channel excluded.

    Raises:
        SettingsError: ``slices`` is not such a text, or holds no slice of the volume.
    """

    def __init__(self, slices: str | None = None, spatial_dim: int = -1) -> None:
        super().__init__(spatial_dim)
        self.slices = slices
        match = _RANGE.fullmatch(":" if slices in (None, "all") else slices if isinstance(slices, str) else "")
        if match is None:
            raise SettingsError(f"slices must be a text such as '40:120', 'all' or None, got {slices!r}.")
        start, stop = (None if bound is None else int(bound) for bound in match.groups())
        self.range = slice(start, stop)

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices in the range.

        Args:
            image: channel-first volume.

        Raises:
            SettingsError: the range holds no slice of this volume.
        """
        depth = image.shape[self.slice_axis(image)]
        kept = range(depth)[self.range]
        if not kept:
            raise SettingsError(f"slices={self.slices!r} holds no slice: the volume has {depth} (0 to {depth - 1}).")
        return list(kept)

    def select(
        self, img: NdarrayOrTensor, kept: Sequence[int], distances: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Keep the slices ``kept`` of ``img``, and note where the range reached beyond the volume."""
        depth = img.shape[self.slice_axis(img)]
        out = super().select(img, kept, distances)
        if self.slices not in (None, "all") and isinstance(out, MetaTensor):
            out.meta["range_depth"] = len(kept)
        reach = max((bound if bound >= 0 else -bound) for bound in (self.range.start or 0, self.range.stop or 0))
        if reach > depth and isinstance(out, MetaTensor):
            append_note(
                out.meta,
                f"slices {self.slices} were asked for, the volume has {depth}: {kept[0]}:{kept[-1] + 1} was taken.",
            )
        return out


class SliceRanged(SliceSelectiond):
    """Dictionary-based wrapper of :class:`SliceRange`.

    Args:
        keys: volumes of equal depth.
        slices: see :class:`SliceRange`.
        spatial_dim: see :class:`SliceRange`.
        ref_key: key whose depth counts; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slices: str | None = None,
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, SliceRange(slices, spatial_dim), ref_key, allow_missing_keys)


SliceRangeD = SliceRangeDict = SliceRanged
