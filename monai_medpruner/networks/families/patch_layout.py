# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How image processors lay out the patches of slices: packed one after another, or in square cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.vision_utils import get_vision_position_ids

__all__ = ["packed_inside", "packed_segments", "packed_slices", "square_cells"]


def packed_slices(inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The packed patches and grids of slices ``start`` to ``stop``, where the patches of all slices are one tensor."""
    grids = inputs["image_grid_thw"]
    patches = grids.prod(-1).tolist()
    first, last = sum(patches[:start]), sum(patches[:stop])
    return {"pixel_values": inputs["pixel_values"][first:last], "image_grid_thw": grids[start:stop]}


def packed_inside(inputs: dict[str, Any], inside: Sequence[torch.Tensor], merge: int) -> dict[str, Any]:
    """Packed patches of some tokens, merge group by merge group, with the positions and segments of the whole grids.

    The grid of a slice becomes one row of its groups, so that whatever counts patches counts these; what depends on the
    true grid is handed over beside it.

    Args:
        inputs: ``pixel_values`` and ``image_grid_thw`` of some slices.
        inside: per slice, bool ``(N_i,)`` on the CPU: which tokens are left.
        merge: side of a merge group, in patches.
    """
    grids, device = inputs["image_grid_thw"], inputs["pixel_values"].device
    places = torch.cat(list(inside)).repeat_interleave(merge**2).nonzero().flatten()
    counts = torch.tensor([int(one.sum()) for one in inside])
    rows = torch.tensor([[1, merge, merge * int(count)] for count in counts])
    segments = torch.nn.functional.pad(counts.cumsum(0) * merge**2, (1, 0)).int()
    return {
        **inputs,
        "pixel_values": inputs["pixel_values"][places.to(device)],
        "image_grid_thw": rows.to(grids.device),
        "image_position_ids": get_vision_position_ids(grids.cpu(), merge)[places].to(device),
        "image_cu_seqlens": segments.to(device),
    }


def packed_segments(args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The hidden states of each segment of ``cu_seqlens``, where one segment is one slice; ``(M_i, E)`` each."""
    hidden = args[0] if args else kwargs["hidden_states"]
    return list(hidden.split(kwargs["cu_seqlens"].diff().tolist()))


def square_cells(patches: torch.Tensor, grid: tuple[int, int], side: int) -> torch.Tensor:
    """Gather the patches of square cells, which do not follow one another, from their raster.

    Args:
        patches: ``(..., M)``, row by row.
        grid: rows and columns of the cells.
        side: of a cell, in patches.

    Returns:
        ``(..., N, side * side)``, cell by cell.
    """
    cells = patches.unflatten(-1, (grid[0], side, grid[1], side)).transpose(-3, -2)
    return cells.flatten(-2).flatten(-3, -2)
