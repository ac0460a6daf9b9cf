# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Why each slice of a study was kept or dropped, as far as its record and its image tell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isnan
from typing import Any

import torch
from torch.nn.functional import avg_pool2d

from monai_medpruner.report.keep_map_files import recorded_arguments
from monai_medpruner.results import StudyRecord
from monai_medpruner.transforms import InterSliceAnchorFilter
from monai_medpruner.transforms.slice_rules.anchor import block_pixels
from monai_medpruner.transforms.slice_rules.base import SliceStack

__all__ = ["GuardBlock", "filter_threshold", "guard_blocks", "has_guard", "slice_reasons"]


@dataclass(frozen=True)
class GuardBlock:
    """The block of a slice whose mean differs most from the anchor's.

    Args:
        rows: first, and last plus one.
        columns: first, and last plus one.
        difference: of the means, in the units of γ.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    difference: float


def filter_threshold(record: StudyRecord) -> float | None:
    """Return γ of the slice filter that measured the record's distances; None where none did."""
    if record.slice_distances is None:
        return None
    value = recorded_arguments(record.settings, "InterSliceAnchorFilter").get("threshold")
    return None if value is None else float(value)


def has_guard(record: StudyRecord) -> bool:
    """Return whether the slice filter of a record had a guard."""
    return recorded_arguments(record.settings, "InterSliceAnchorFilter").get("guard_mm") is not None


def guard_blocks(record: StudyRecord, scaled: torch.Tensor) -> dict[int, GuardBlock]:
    """Return, for each slice that a guard kept, the block that did; found by running the filter again.

    Args:
        record: of the study.
        scaled: ``(C, H, W, D)``, the whole volume as the filter got it, and its metadata.
    """
    arguments = recorded_arguments(record.settings, "InterSliceAnchorFilter")
    threshold, distances = filter_threshold(record), record.slice_distances
    if threshold is None or distances is None or not has_guard(record):
        return {}
    chosen = [index for index, distance in enumerate(distances) if not isnan(distance)]
    volume = scaled[..., chosen[0] : chosen[-1] + 1]
    names = ("guard_mm", "guard_threshold", "max_gap_mm")
    rule = InterSliceAnchorFilter(threshold, **{name: arguments[name] for name in names if name in arguments})
    anchors = [chosen[0] + place for place in rule.kept_slices(volume)]
    block = block_pixels(SliceStack.from_volume(volume, 3), float(arguments["guard_mm"]))
    found = {}
    for anchor, index in pairwise(anchors):
        if distances[index] <= threshold and index in record.slice_indices:
            one = _largest_block(scaled[..., index] - scaled[..., anchor], block)
            if one.difference > arguments["guard_threshold"]:
                found[index] = one
    return found


def _largest_block(difference: torch.Tensor, block: tuple[int, int]) -> GuardBlock:
    plain = torch.as_tensor(difference).double()
    means = avg_pool2d(plain, block, ceil_mode=True, count_include_pad=False).abs().amax(0)
    row, column = divmod(int(means.argmax()), means.shape[1])
    size = plain.shape[1:]
    rows, columns = (
        (place * step, min((place + 1) * step, int(length)))
        for place, step, length in zip((row, column), block, size, strict=True)
    )
    return GuardBlock(rows, columns, float(means.max()))


def slice_reasons(record: StudyRecord, blocks: dict[int, GuardBlock]) -> list[dict[str, Any]]:
    """Say of every slice whether it was kept, and why.

    Args:
        record: of the study.
        blocks: of :func:`guard_blocks`.

    Returns:
        Per slice ``state`` ("kept", "guard", "left" for one that was dropped behind the encoder, "dropped"), ``why``,
        a sentence; and ``block``, rows and columns, for "guard".
    """
    kept, gone = set(record.slice_indices), set(record.dropped_slices)
    threshold, distances = filter_threshold(record), record.slice_distances
    arguments = recorded_arguments(record.settings, "InterSliceAnchorFilter")
    bounds = {"guard_mm": "by the guard", "max_gap_mm": "for the largest gap that is allowed"}
    beyond = " or ".join(text for name, text in bounds.items() if arguments.get(name) is not None)
    first = next((i for i, one in enumerate(distances or ()) if not isnan(one)), 0)
    out: list[dict[str, Any]] = []
    for index in range(record.total_slices):
        distance = None if distances is None or isnan(distances[index]) else distances[index]
        if index in gone:
            out.append({"state": "left", "why": "encoded, then dropped but for one token"})
        elif index in blocks:
            one = blocks[index]
            why = f"kept by the guard: a block differs by {one.difference:.3f} from the anchor"
            out.append({"state": "guard", "why": why, "block": [*one.rows, *one.columns]})
        else:
            state = "kept" if index in kept else "dropped"
            out.append({"state": state, "why": _why(index in kept, index == first, distance, threshold, beyond)})
    return out


def _why(kept: bool, first: bool, distance: float | None, threshold: float | None, beyond: str) -> str:
    if threshold is None:
        return "kept by the rule for slices" if kept else "not chosen by the rule for slices"
    if distance is None:
        return "kept" if kept else "outside the chosen range"
    compared = f"distance {distance:.4f}"
    if kept and first:
        return "kept: the first slice, the first anchor"
    if kept:
        return (
            f"kept: {compared} > γ {threshold:g}"
            if distance > threshold
            else f"kept {beyond}: {compared} ≤ γ {threshold:g}"
        )
    if distance > threshold:
        return f"passed the filter ({compared} > γ {threshold:g}), dropped by a limit on slices"
    return f"dropped: {compared} ≤ γ {threshold:g}"
