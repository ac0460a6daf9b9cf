# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether the model was given a lesion, in words, and why or why not."""

from __future__ import annotations

from math import isnan

import numpy as np

from monai_medpruner.report.keep_map import token_of_pixels
from monai_medpruner.report.lesion_shares import LesionShares
from monai_medpruner.report.slice_reasons import filter_threshold, slice_reasons
from monai_medpruner.results import StudyRecord

__all__ = ["lesion_state", "lesion_verdict", "lesion_why"]

_MOST_SLICES = 6  # that a sentence names


def lesion_state(shares: LesionShares) -> str:
    """Return "seen", "seen in means alone" or "not seen"."""
    if shares.selected:
        return "seen"
    return "seen in means alone" if shares.contextual or shares.merged else "not seen"


def lesion_verdict(shares: LesionShares, record: StudyRecord) -> str:
    """Return a sentence that says where the lesion was lost, or how much of it the model was given.

    Args:
        shares: of the lesion.
        record: of the study.
    """
    if not shares.kept_slices:
        threshold, distances = filter_threshold(record), record.slice_distances
        if threshold is None or distances is None:
            return "Not seen: none of its slices was read."
        largest = max((distances[i] for i in shares.slices if not isnan(distances[i])), default=None)
        if largest is None:
            return "Not seen: its slices lie outside the chosen range."
        if largest <= threshold:
            return f"Not seen: its slices differ from their anchor by {largest:.4f} at most, and γ is {threshold:g}."
        return "Not seen: its slices passed the filter, and a limit on slices dropped them."
    if not shares.encoded:
        return "Not seen: it was cropped away."
    if shares.selected:
        return f"Seen: {shares.selected:.0%} of it lies in selected tokens."
    if shares.contextual or shares.merged:
        return "Seen in means alone: no selected token shows it; its tokens were merged with others."
    return "Not seen: its slices were read, and all of its tokens were dropped."


def lesion_why(mask: np.ndarray, shares: LesionShares, record: StudyRecord) -> str:
    """Say which of its slices were not read, and how its best token ranks among those of its slice.

    Args:
        mask: bool ``(H, W, D)`` in the view of the record, not empty.
        shares: of that lesion.
        record: of the study.

    Returns:
        Up to two sentences; empty where nothing more is known.
    """
    reasons = slice_reasons(record, {})
    missed = [index for index in shares.slices if index not in shares.kept_slices]
    sentences = []
    if missed:
        listed = "; ".join(f"slice {index}, {reasons[index]['why']}" for index in missed[:_MOST_SLICES])
        more = f"; and {len(missed) - _MOST_SLICES} more" if len(missed) > _MOST_SLICES else ""
        sentences.append(f"Not read: {listed}{more}.")
    ranks = [one for index in shares.kept_slices if (one := _best_rank(mask[..., index], index, record)) is not None]
    if ranks:
        place, index, count, selected = min(ranks)
        sentences.append(
            f"By importance, the highest of its tokens is number {place} of {count} in slice {index}, where {selected} "
            f"{'was' if selected == 1 else 'were'} selected."
        )
    return " ".join(sentences)


def _best_rank(mask: np.ndarray, index: int, record: StudyRecord) -> tuple[int, int, int, int] | None:
    """Return the rank of the lesion's highest token in a slice, the slice, its tokens and how many were selected."""
    one = record.slices[record.slice_indices.index(index)]
    height, width, _ = record.geometry.shape
    (top, bottom), (left, right) = record.geometry.crop or ((0, height), (0, width))
    inside = mask[top:bottom, left:right]
    if one.importance is None or not inside.any():
        return None
    importance = one.importance.nan_to_num().numpy()
    highest = importance[token_of_pixels(one.grid, inside.shape)[inside]].max()
    return int((importance > highest).sum()) + 1, index, importance.size, int(one.primary.sum())
