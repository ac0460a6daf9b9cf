# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Signals that are known before the vision encoder runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.networks.local_contrast import local_contrast_of, slice_planes
from monai_medpruner.pruners import AnchorSlices, LocalContrast, Signal, SlicePositions

__all__ = ["anchor_slices_of", "slice_signals"]


def slice_signals(
    family: ModelFamily,
    wanted: Iterable[Signal],
    inputs: dict[str, Any],
    grids: Sequence[tuple[int, int]],
    patches_per_token: int,
    slice_positions_mm: Sequence[float] | None = None,
) -> dict[Signal, torch.Tensor]:
    """Compute those of the signals that need no encoder, ``(S,)`` or ``(S, M)`` on the model's device.

    Args:
        family: of the model.
        wanted: signals; others are left out.
        inputs: holds the family's image inputs.
        grids: rows and columns of each slice's tokens.
        patches_per_token: image patches that form one token.
        slice_positions_mm: position of each slice along the slice axis; needed where positions are wanted.

    Raises:
        SettingsError: positions are wanted and not given, or not one for each slice.
    """
    found: dict[Signal, torch.Tensor] = {}
    for signal in wanted:
        if isinstance(signal, SlicePositions):
            found[signal] = _positions(family, slice_positions_mm, len(grids))
        elif isinstance(signal, AnchorSlices):
            pixels = _slice_pixels(inputs[family.image_inputs[0]], grids, patches_per_token)
            found[signal] = anchor_slices_of(pixels, signal.threshold).to(family.model.device)
        elif isinstance(signal, LocalContrast):
            planes = slice_planes(inputs[family.image_inputs[0]], grids, patches_per_token)
            found[signal] = local_contrast_of(planes, grids).to(family.model.device)
    return found


def anchor_slices_of(slices: Sequence[torch.Tensor], threshold: float) -> torch.Tensor:
    """Which slices the anchor rule keeps, as :class:`~monai_medpruner.pruners.AnchorSlices` says, bool ``(S,)``.

    Means are those of the pixels' own type, as in the authors' code. The host waits for no slice.

    Args:
        slices: pixels of each slice, any shape.
        threshold: γ, in the units of the pixels.
    """
    anchor = slices[0]
    kept = [torch.ones((), dtype=torch.bool, device=anchor.device)]
    for pixels in slices[1:]:
        if pixels.shape != anchor.shape:
            kept.append(torch.ones_like(kept[0]))
            anchor = pixels
            continue
        kept.append((pixels - anchor).abs_().mean() > threshold)
        anchor = torch.where(kept[-1], pixels, anchor)
    return torch.stack(kept)


def _slice_pixels(
    pixels: torch.Tensor, grids: Sequence[tuple[int, int]], patches_per_token: int
) -> Sequence[torch.Tensor]:
    """The pixels of each slice: a row of its own, or its patches among those of all slices."""
    if len(pixels) == len(grids):
        return pixels.unbind()
    return pixels.split([rows * columns * patches_per_token for rows, columns in grids])


def _positions(family: ModelFamily, slice_positions_mm: Sequence[float] | None, slices: int) -> torch.Tensor:
    """Positions as a tensor on the model's device, one per slice."""
    if slice_positions_mm is None:
        raise SettingsError("a pruner needs the slices' positions: give slice_positions_mm, one number per slice")
    if len(slice_positions_mm) != slices:
        raise SettingsError(
            f"slice_positions_mm must hold one number per slice, got {len(slice_positions_mm)} for {slices} slices"
        )
    return torch.as_tensor(slice_positions_mm, dtype=torch.float32, device=family.model.device)
