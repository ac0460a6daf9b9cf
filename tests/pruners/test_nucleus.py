# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pruner_oracles import REACHED, nucleus_masses, nucleus_oracle

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import Keys, NucleusPruner, ReceivedAttention, SliceTokens, nucleus

# steps of 1/8: ties are frequent and exact, different scores stay different in float32
SCORES = st.lists(st.integers(0, 60).map(lambda steps: steps / 8), min_size=1, max_size=40)
TAUS = st.one_of(st.floats(0.01, 0.999), st.sampled_from([1e-12, 0.25, 0.5, 0.9, 1.0]))
TEMPERATURES = st.floats(0.05, 50)


def kept(mask: torch.Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def slice_tokens(importance: torch.Tensor, patches_per_token: int = 1) -> SliceTokens:
    """One slice with nothing but scores."""
    length = len(importance)
    return SliceTokens(
        tokens=torch.zeros(1, length, 1),
        valid=torch.ones(1, length, dtype=torch.bool),
        grids=[(1, length)],
        signals={ReceivedAttention(): importance[None].float(), Keys(): torch.zeros(1, length, 1)},
        patches_per_token=patches_per_token,
    )


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(SCORES, min_size=1, max_size=4), tau=TAUS, temperature=TEMPERATURES, padding=st.data())
def test_equals_the_loop_on_ragged_rows(rows, tau, temperature, padding):
    length = max(len(row) for row in rows) + padding.draw(st.integers(0, 3))
    # padding lies anywhere, and holds the highest scores
    scores = torch.full((len(rows), length), 1e6)
    valid = torch.zeros(len(rows), length, dtype=torch.bool)
    places = [sorted(padding.draw(st.permutations(range(length)))[: len(row)]) for row in rows]
    for index, (row, place) in enumerate(zip(rows, places, strict=True)):
        scores[index, place] = torch.tensor(row)
        valid[index, place] = True
    mask = nucleus(scores, tau, temperature, valid)
    assert mask.dtype == torch.bool
    for index, (row, place) in enumerate(zip(rows, places, strict=True)):
        expected = nucleus_oracle(row, tau, temperature)
        assert kept(mask[index]) == [place[j] for j in expected]
        assert kept(nucleus(torch.tensor(row), tau, temperature)) == expected


@settings(max_examples=100, deadline=None)
@given(row=SCORES, tau=TAUS, temperature=TEMPERATURES)
def test_smallest_set_that_reaches_tau(row, tau, temperature):
    mask = nucleus(torch.tensor(row), tau, temperature).tolist()
    masses = nucleus_masses(row, temperature)
    inside = [mass for mass, keep in zip(masses, mask, strict=True) if keep]
    outside = [mass for mass, keep in zip(masses, mask, strict=True) if not keep]
    assert inside
    assert math.fsum(inside) >= tau - 2 * REACHED
    assert min(inside) >= max(outside, default=0)
    if tau < 1 and len(inside) > 1:
        assert math.fsum(sorted(inside)[1:]) < tau


@pytest.mark.parametrize(
    ("tokens", "tau", "count"),
    # in float64, 0.1 + ... + 0.1 stops short of 0.8 and of 0.9
    [(10, 0.7, 7), (10, 0.3, 3), (10, 0.71, 8), (10, 0.8, 8), (10, 0.9, 9), (3, 1 / 3, 1), (1000, 0.9, 900)],
)
@pytest.mark.parametrize("score", [1.0, 0.1, 1e30])
def test_equal_tokens_reach_tau_exactly(tokens, tau, count, score):
    assert kept(nucleus(torch.full((tokens,), score), tau, 2.0)) == list(range(count))


def test_ties_keep_the_lower_index():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 3, (600,), generator=generator).double()
    mask = nucleus(scores, 0.5, 5.0)
    assert kept(mask) == nucleus_oracle(scores.tolist(), 0.5, 5.0)
    (cut,) = {score for score in range(3) if 0 < mask[scores == score].sum() < (scores == score).sum()}
    assert mask[scores == cut].int().diff().max() == 0  # within the level that is cut: kept first, dropped after


def test_tau_one_keeps_all_even_without_mass():
    scores = torch.tensor([[0.0, 1e4, 0.0], [1.0, 2.0, 3.0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    mask = nucleus(scores, 1, 1e-3, valid)
    assert torch.equal(mask, valid)
    mask[:] = False
    assert valid.any()  # a copy, not the caller's own mask


def test_row_without_valid_tokens_keeps_none_and_leaves_the_others_alone():
    valid = torch.tensor([[False, False], [True, True]])
    assert nucleus(torch.tensor([[5.0, 1.0], [5.0, 1.0]]), 0.9, 1.0, valid).tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1e-308, [1]), (1e-12, [1]), (1.0, [1]), (1e12, [1, 2, 3]), (1e300, [0, 1, 2]), (math.inf, [0, 1, 2])],
)
def test_extreme_temperatures(temperature, expected):
    # limits: the largest alone, or uniform masses, of which 3 of 4 reach 0.7; ordered as long as they differ at all
    assert kept(nucleus(torch.tensor([1.0, 30.0, 2.0, 1.5]), 0.7, temperature)) == expected


@pytest.mark.parametrize("offset", [1e4, 1e7, -1e7])
def test_large_scores_do_not_overflow(offset):
    scores = torch.tensor([0.0, 3.0, 1.0, 3.0, 2.0], dtype=torch.float64)
    assert kept(nucleus(scores + offset, 0.8, 1.0)) == nucleus_oracle(scores.tolist(), 0.8, 1.0) == [1, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_any_type_of_score(dtype):
    scores = [0, 3, 1, 3, 2, 5, 4, 1]
    assert kept(nucleus(torch.tensor(scores, dtype=dtype), 0.95, 1.0)) == nucleus_oracle(scores, 0.95, 1.0)


def test_leading_axes():
    scores = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(1)).double()
    mask = nucleus(scores, 0.8, 0.5)
    for row, expected in zip(mask.flatten(0, 1), scores.flatten(0, 1), strict=True):
        assert kept(row) == nucleus_oracle(expected.tolist(), 0.8, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"tau": tau} for tau in (0, -0.1, 1.0001, math.nan, math.inf)]
    + [{"temperature": temperature} for temperature in (0, -1.0, math.nan, -math.inf)],
)
def test_bad_settings(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        nucleus(torch.ones(4), **{"tau": 0.9, "temperature": 2.0, **wrong})
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        NucleusPruner(**wrong)


def test_bad_importance_scale():
    with pytest.raises(SettingsError, match="importance_scale"):
        NucleusPruner(importance_scale="sum")


@pytest.mark.parametrize(("tokens", "count"), [(64, 57), (256, 1)])
def test_sink_hijacks_the_nucleus_of_many_tokens(tokens, count):
    """A sink holds 10 % of the attention, the others share the rest; relative importance, T = 2, tau = 0.9."""
    importance = torch.full((tokens,), 0.9 / (tokens - 1) * tokens)
    importance[tokens // 2] = 0.1 * tokens
    mask = NucleusPruner()(slice_tokens(importance)).primary[0]
    assert mask.sum() == count
    assert mask[tokens // 2]
    assert kept(mask) == nucleus_oracle(importance.tolist(), 0.9, 2.0)


@settings(max_examples=100, deadline=None)
@given(row=SCORES, tau=st.floats(0.05, 0.99), temperature=st.floats(0.2, 20), patches=st.sampled_from([1, 4, 16]))
def test_paper_scale_selects_the_same_at_its_own_temperature(row, tau, temperature, patches):
    """T_paper = T / M_patch."""
    masses = sorted(nucleus_masses(row, temperature), reverse=True)
    assume(all(abs(math.fsum(masses[:count]) - tau) > 1e-5 for count in range(len(row))))
    slices = slice_tokens(torch.tensor(row), patches)
    relative = NucleusPruner(tau=tau, temperature=temperature)
    paper = NucleusPruner(tau=tau, temperature=temperature / (len(row) * patches), importance_scale="paper")
    mask = paper(slices).primary
    assert kept(mask[0]) == nucleus_oracle(row, tau, temperature)
    assert torch.equal(mask, relative(slices).primary)


@pytest.mark.parametrize("patches", [1, 4, 16])
def test_paper_scale_keeps_nearly_everything_at_the_temperature_of_the_relative_one(patches):
    importance = torch.full((256,), 0.9 / 255 * 256)
    importance[0] = 0.1 * 256
    mask = NucleusPruner(importance_scale="paper")(slice_tokens(importance, patches)).primary[0]
    literal = (importance.double() / (256 * patches)).tolist()
    assert kept(mask) == nucleus_oracle(literal, 0.9, 2.0)
    assert mask.sum() >= 230  # tau * M
