# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The tokens of a record as values for a page: states, merges, importance, and the curve of the mass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from monai_medpruner.results import SliceRecord, StudyRecord

__all__ = ["mass_line", "slice_tokens"]

_POINTS = 96  # of a curve


def slice_tokens(record: StudyRecord) -> dict[int, dict[str, Any]]:
    """Return the tokens of each kept slice.

    Returns:
        By index of the slice: ``grid``; ``state``, a digit for each token (0 dropped or merged, 1 contextual, 2
        selected); ``into``, what each merged token is part of, as pairs of token and contextual token; ``importance``,
        where there are scores; ``curve``, pairs of number of tokens and their share of the mass, and ``chosen``, the
        number of selected tokens.
    """
    return {
        index: _tokens(one, record.settings.get("pruner") or {})
        for index, one in zip(record.slice_indices, record.slices, strict=True)
    }


def _tokens(one: SliceRecord, pruner: Mapping[str, Any]) -> dict[str, Any]:
    state = 2 * one.primary.int() + (one.contextual & ~one.primary).int()
    merged = ((one.merged_into >= 0) & ~one.keep).nonzero().squeeze(1)
    facts: dict[str, Any] = {
        "grid": list(one.grid),
        "state": "".join(map(str, state.tolist())),
        "into": [[token, int(one.merged_into[token])] for token in merged.tolist()],
        "chosen": int(one.primary.sum()),
    }
    if one.importance is not None:
        facts["importance"] = [float(f"{value:.3g}") for value in one.importance.nan_to_num().tolist()]
        facts["curve"] = _curve(_mass(one.importance.double().nan_to_num(), pruner))
    return facts


def _mass(importance: torch.Tensor, pruner: Mapping[str, Any]) -> torch.Tensor:
    """The mass of each token in its slice: the nucleus pruner's softmax where it is known, else importance itself."""
    if not _has_softmax(pruner):
        return importance / importance.sum().clamp_min(1e-12)
    limit = pruner.get("max_importance")
    score = importance if limit is None else importance.clamp(max=limit)
    return torch.softmax((score - score.max()) / pruner["temperature"], dim=0)


def _has_softmax(pruner: Mapping[str, Any]) -> bool:
    # on the paper's scale the mass depends on the patches of a token, which no record states
    return pruner.get("name") == "nucleus" and pruner.get("importance_scale") == "relative"


def _curve(mass: torch.Tensor) -> list[list[float]]:
    total = mass.sort(descending=True).values.cumsum(0)
    count = len(total)
    places = torch.linspace(1, count, min(_POINTS, count)).round().long().unique().tolist()
    return [[0, 0.0], *([place, round(float(total[place - 1]), 4)] for place in places)]


def mass_line(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the curve of the mass shows, and where its line is.

    Args:
        settings: of a record.

    Returns:
        ``axis``, what is summed; ``tau``, the share that the selected tokens reach, or None; ``note``, a sentence.
    """
    pruner, budget = settings.get("pruner") or {}, settings.get("budget") or {}
    softmax = _has_softmax(pruner)
    axis = f"softmax mass at T {pruner['temperature']:g}" if softmax else "importance"
    limited = any(budget.get(name) is not None for name in ("retention", "max_visual_tokens"))
    tau = pruner.get("tau") if softmax and pruner.get("scope") == "slice" else None
    if limited:
        note = "The vertical line is what the budget left to this slice."
    elif tau is not None:
        note = f"The smallest set of tokens that holds τ = {tau:g} of the mass is selected."
    else:
        note = "The vertical line is the number of selected tokens."
    return {"axis": axis, "tau": None if tau is None or (limited and tau >= 1) else tau, "note": note}
