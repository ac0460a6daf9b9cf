# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The candidate for a pruner that keeps rare tokens: its scores against a plain loop, and what a budget leaves."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import SliceTokens

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def pruner(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("rare_tokens").RareTokensPruner


@pytest.fixture
def slices():
    tokens = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    tokens[1] = tokens[0] + 0.01  # the second slice looks like the first
    tokens[1, 4] = torch.tensor([9.0, -9.0, 9.0, -9.0, 0.0])
    valid = torch.ones(3, 9, dtype=torch.bool)
    valid[2, 6:] = False
    return SliceTokens(tokens, valid, [(3, 3), (3, 3), (2, 3)])


def test_scores_are_those_of_a_plain_loop(pruner, slices):
    score = pruner(neighbors=2).score(slices)
    rows = slices.tokens.double().numpy()
    rows = (rows - rows.mean(2, keepdims=True)) / np.sqrt(rows.var(2, keepdims=True) + 1e-5)
    flat = [(s, m) for s in range(3) for m in range(9) if slices.valid[s, m]]
    for place in flat:
        distances = sorted(float(np.linalg.norm(rows[place] - rows[other])) for other in flat if other != place)
        assert score[place].item() == pytest.approx((distances[0] + distances[1]) / 2, abs=1e-4)
    assert (score[2, 6:] == 0).all()


def test_budget_keeps_the_rarest_token_of_each_slice_and_of_the_volume(pruner, slices):
    one = pruner()
    score = one.score(slices)
    kept = one(slices, 5).primary
    assert kept.sum() == 5
    assert not kept[2, 6:].any()
    assert kept[torch.arange(3), score.argmax(1)].all()
    assert kept[1, 4]
    others = score.clone()
    others[torch.arange(3), score.argmax(1)] = 0
    assert kept.flatten()[others.flatten().topk(2).indices].all()


def test_without_a_budget_all_tokens_stay(pruner, slices):
    assert torch.equal(pruner()(slices).keep, slices.valid)


def test_neighbors_are_at_least_one(pruner):
    with pytest.raises(SettingsError, match="at least 1"):
        pruner(neighbors=0)
