# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Budgets of tokens: how many there are, and which tokens stay."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.errors import BudgetError, SettingsError
from monai_medpruner.pruners import (
    PRUNERS,
    AveragePoolingPruner,
    Keys,
    NucleusPruner,
    ReceivedAttention,
    SliceTokens,
    TokenBudget,
    TokenPruner,
    slice_share,
)
from monai_medpruner.pruners.medpruner_released import MedPrunerReleasedPruner
from monai_medpruner.testing import padded_batch, random_slices

CASES = [
    *(pruner() for pruner in PRUNERS.values()),
    NucleusPruner(tau=1.0),
    NucleusPruner(tau=1.0, contextual_ratio=0.0, min_tokens=3),
    NucleusPruner(tau=1.0, contextual_ratio=0.6, min_tokens=2),
    NucleusPruner(tau=1.0, contextual_ratio=1.0),
    NucleusPruner(scope="volume", temperature=0.05),
    NucleusPruner(tau=1.0, importance_scale="paper", max_importance=1.0),
]
grids = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


@pytest.mark.parametrize("pruner", CASES, ids=repr)
@settings(max_examples=25, deadline=None)
@given(sizes=grids, share=st.floats(0, 1.1), seed=st.integers(0, 99))
def test_never_above_the_limit(pruner, sizes, share, seed):
    """Contextual tokens included, with every slice seen; or refused where the slices keep more at the least."""
    slices = padded_batch(random_slices(pruner.signals, sizes, seed))
    total = sum(rows * columns for rows, columns in sizes)
    least = sum(pruner.least_tokens(rows * columns) for rows, columns in sizes)
    if isinstance(pruner, MedPrunerReleasedPruner):  # of a slice that its rule drops, one token
        kept = slices.signal(pruner._anchors).tolist()
        pairs = zip(sizes, kept, strict=True)
        least = sum(pruner.least_tokens(rows * columns) if one else 1 for (rows, columns), one in pairs)
    limit = int(share * total)
    free = pruner(slices)
    # by its own rule a pruner may keep less than what it is given at the least
    if limit < least and limit < free.keep.sum():
        with pytest.raises(BudgetError, match=f"budget of {limit} visual tokens is too small for {len(sizes)} slices"):
            pruner(slices, limit)
        return
    pruned = pruner(slices, limit) if limit >= least else free
    assert pruned.keep.sum() <= max(limit, free.keep.sum() if limit < least else 0)
    assert pruned.keep.any(dim=1).all()
    assert not (pruned.keep & ~slices.valid).any()
    if free.keep.sum() <= limit:
        assert torch.equal(pruned.keep, free.keep)
        assert torch.equal(pruned.tokens[pruned.keep], free.tokens[free.keep])


@settings(max_examples=60, deadline=None)
@given(sizes=grids, ratio=st.sampled_from([0.0, 0.05, 0.3]), data=st.data())
def test_the_limit_is_used_to_the_last_token(sizes, ratio, data):
    pruner = NucleusPruner(tau=1.0, contextual_ratio=ratio)
    total = sum(rows * columns for rows, columns in sizes)
    least = sum(pruner.least_tokens(rows * columns) for rows, columns in sizes)
    limit = data.draw(st.integers(least, total))
    pruned = pruner(padded_batch(random_slices(pruner.signals, sizes)), limit)
    assert pruned.keep.sum() == limit


def attention(scores: list[list[float]]) -> SliceTokens:
    """Slices of as many tokens in a row, with these scores."""
    score = torch.tensor(scores)
    tokens = torch.arange(float(score.numel())).view(*score.shape, 1)
    signals = {ReceivedAttention(): score, Keys(): torch.ones(*score.shape, 2)}
    return SliceTokens(tokens, torch.ones_like(score, dtype=torch.bool), [(1, score.shape[1])] * len(score), signals)


def places(pruned) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in pruned.primary]


def test_the_highest_of_all_slices_stay():
    slices = attention([[5.0, 4.0, 3.0, 0.1], [0.2, 0.1, 0.4, 0.3], [2.0, 3.5, 0.0, 0.0]])
    pruner = NucleusPruner(tau=1.0, contextual_ratio=0.0)
    assert places(pruner(slices, 3)) == [[0], [2], [1]]
    assert places(pruner(slices, 5)) == [[0, 1, 2], [2], [1]]
    assert places(pruner(slices, 6)) == [[0, 1, 2], [2], [0, 1]]
    # two of each first
    two = NucleusPruner(tau=1.0, contextual_ratio=0.0, min_tokens=2)
    assert places(two(slices, 7)) == [[0, 1, 2], [2, 3], [0, 1]]


def test_contextual_tokens_count():
    slices = attention([[5.0, 4.0, 3.0, 0.1], [0.2, 0.1, 0.4, 0.3]])
    pruned = NucleusPruner(tau=1.0, contextual_ratio=0.25)(slices, 5)
    assert places(pruned) == [[0, 1], [2]]
    assert pruned.contextual.sum(1).tolist() == [1, 1]


def test_equal_scores_go_round_the_slices():
    slices = attention([[1.0] * 4] * 3)
    pruner = NucleusPruner(tau=1.0, contextual_ratio=0.0)
    assert places(pruner(slices, 5)) == [[0, 1], [0, 1], [0]]
    # clipped ones are equals
    clipped = NucleusPruner(tau=1.0, contextual_ratio=0.0, max_importance=1.0)
    assert places(clipped(attention([[9.0, 8.0, 7.0], [1.0, 1.0, 0.0]]), 4)) == [[0, 1], [0, 1]]


def test_a_nucleus_below_the_limit_stays_as_it_is():
    slices = attention([[5.0, 4.0, 3.0, 0.1], [0.2, 0.1, 0.4, 0.3]])
    pruner = NucleusPruner(tau=0.5, temperature=0.5)
    assert torch.equal(pruner(slices, 8).keep, pruner(slices).keep)


def test_cells_grow_with_the_limit():
    slices = padded_batch(random_slices([], [(6, 6), (6, 6)]))
    pruner = AveragePoolingPruner(pool=2)
    assert [int(pruner(slices, limit).keep.sum()) for limit in (72, 18, 17, 8, 7, 2)] == [18, 18, 8, 8, 2, 2]
    assert torch.equal(pruner(slices, 8).tokens, AveragePoolingPruner(pool=3)(slices).tokens)
    with pytest.raises(BudgetError, match="too small for 2 slices"):
        pruner(slices, 1)


def test_a_pruner_that_makes_more_than_it_says_is_refused():
    @dataclass(frozen=True)
    class Greedy(NucleusPruner):
        def contextual_count(self, tokens):
            return 0

    with pytest.raises(BudgetError, match="Greedy keeps 6 tokens, more than the limit of 4"):
        Greedy(tau=1.0, contextual_ratio=0.25)(attention([[1.0] * 4] * 2), 4)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-4, 1), st.integers(1, 10**7), st.one_of(st.none(), st.integers(1, 10**6)))
def test_share_of_the_tokens(retention, unpruned, most):
    tokens = TokenBudget(retention, most).tokens(unpruned)
    assert tokens == min(int(Fraction(str(retention)) * unpruned), most or unpruned)
    assert tokens / unpruned <= retention
    assert TokenBudget(None, most).tokens(unpruned) == most


def test_a_share_counts_as_it_is_written():
    assert TokenBudget(0.29).tokens(100) == 29
    assert TokenBudget(0.05).tokens(360) == 18
    assert TokenBudget(0.05).tokens(359) == 17


def test_share_of_the_slices():
    assert slice_share(0.25) == 0.5
    assert TokenBudget(0.25).slices(10, 1000) == 5
    assert TokenBudget(0.25, 40).slices(10, 1000) == 2  # 4 % of the tokens
    assert TokenBudget(max_visual_tokens=2000).slices(10, 1000) == 10
    assert TokenBudget(1e-4).slices(10, 1000) == 1
    assert TokenBudget(0.25, slice_ratio=0.3).slices(10, 1000) == 3
    assert TokenBudget(0.25, share_slices=False).slices(10, 1000) == 10
    assert TokenBudget(slice_ratio=0.3).slices(10, 1000) == 3
    assert TokenBudget().slices(10, 1000) == 10
    ratios = [TokenBudget(0.25), TokenBudget(0.25, slice_ratio=0.3), TokenBudget(max_visual_tokens=5), TokenBudget()]
    assert [one.known_slice_ratio for one in ratios] == [0.5, 0.3, None, None]
    assert TokenBudget(0.25, share_slices=False).known_slice_ratio is None
    assert [one.limits_tokens for one in ratios] == [True, True, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"retention": 0}, "retention must lie in"),
        ({"retention": 1.5}, "retention must lie in"),
        ({"retention": float("nan")}, "retention must lie in"),
        ({"retention": "5 %"}, "retention must be a number or None"),
        ({"max_visual_tokens": 0}, "max_visual_tokens must be at least 1"),
        ({"max_visual_tokens": 12.5}, "max_visual_tokens must be a whole number"),
        ({"slice_ratio": 0.0}, "slice_ratio must lie in"),
    ],
    ids=str,
)
def test_what_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        TokenBudget(**values)


def test_least_tokens():
    assert issubclass(BudgetError, SettingsError)
    assert [NucleusPruner().least_tokens(tokens) for tokens in (1, 2, 3, 20, 256)] == [1, 2, 2, 2, 13]
    assert NucleusPruner(contextual_ratio=0.0, min_tokens=4).least_tokens(256) == 4
    assert AveragePoolingPruner().least_tokens(256) == 1
    assert TokenPruner.limit is not NucleusPruner.limit
