# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Rare tokens: scores against a plain loop, what a share and a budget leave, blocks of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import RareTokensPruner, SliceTokens, rare_tokens


@pytest.fixture
def slices():
    tokens = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    tokens[1] = tokens[0] + 0.01  # the second slice looks like the first
    tokens[1, 4] = torch.tensor([9.0, -9.0, 9.0, -9.0, 0.0])
    valid = torch.ones(3, 9, dtype=torch.bool)
    valid[2, 6:] = False
    return SliceTokens(tokens, valid, [(3, 3), (3, 3), (2, 3)])


def plain_scores(slices, neighbors):
    rows = slices.tokens.double().numpy()
    rows = rows - rows.mean(2, keepdims=True)
    rows = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    places = [(s, m) for s in range(3) for m in range(9) if slices.valid[s, m]]
    scores = np.zeros(slices.valid.shape)
    for place in places:
        distances = sorted(float(np.linalg.norm(rows[place] - rows[other])) for other in places if other != place)
        scores[place] = np.mean(distances[:neighbors])
    return scores


@pytest.mark.parametrize("neighbors", [1, 2, 5])
def test_scores_are_those_of_a_plain_loop(slices, neighbors):
    scores = RareTokensPruner(neighbors=neighbors).score(slices)
    np.testing.assert_allclose(scores.numpy(), plain_scores(slices, neighbors), atol=5e-3)


def test_scale_and_offset_of_a_token_do_not_matter(slices):
    scores = RareTokensPruner().score(slices)
    other = SliceTokens(slices.tokens * torch.rand(3, 9, 1).add(0.1) + 3, slices.valid, slices.grids)
    torch.testing.assert_close(RareTokensPruner().score(other), scores, atol=5e-3, rtol=0)


def test_blocks_of_pairs_do_not_change_the_scores(slices, monkeypatch):
    whole = RareTokensPruner().score(slices)
    monkeypatch.setattr(rare_tokens, "_PAIRS_AT_ONCE", 100)  # four rows at once, and a shorter last block
    assert torch.equal(RareTokensPruner().score(slices), whole)


def test_copies_have_the_same_score_in_every_block(monkeypatch):
    monkeypatch.setattr(rare_tokens, "_PAIRS_AT_ONCE", 7 * 64)
    tokens = torch.randn(1, 8, 333, generator=torch.Generator().manual_seed(1)).repeat(8, 1, 1)
    scores = RareTokensPruner(neighbors=9).score(SliceTokens(tokens, torch.ones(8, 8, dtype=torch.bool), [(2, 4)] * 8))
    assert torch.equal(scores, scores[:1].expand(8, 8))


def test_share_is_that_of_the_volume_and_no_slice_is_left_empty(slices):
    one = RareTokensPruner(keep_ratio=0.3)
    score = one.score(slices)
    kept = one(slices).keep
    assert kept.sum() == 8  # of 24 tokens, rounded up
    highest = score.argmax(1)
    assert kept[torch.arange(3), highest].all()
    others = score.clone()
    others[torch.arange(3), highest] = 0
    assert torch.equal(others[kept].topk(5).values, others.flatten().topk(5).values)
    assert RareTokensPruner(keep_ratio=0.01)(slices).keep.sum(1).tolist() == [1, 1, 1]


def test_budget_keeps_the_rarest_token_of_each_slice_and_of_the_volume(slices):
    one = RareTokensPruner(keep_ratio=1.0)
    assert torch.equal(one(slices).keep, slices.valid)
    score = one.score(slices)
    kept = one(slices, 5).primary
    assert kept.sum() == 5
    assert kept[1, 4]
    assert kept[torch.arange(3), score.argmax(1)].all()


def test_a_single_token_is_kept():
    single = SliceTokens(torch.ones(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), [(1, 1)])
    assert RareTokensPruner().score(single).tolist() == [[0]]
    assert RareTokensPruner()(single).keep.all()


@pytest.mark.parametrize(("settings", "text"), [({"neighbors": 0}, "at least 1"), ({"keep_ratio": 0.0}, "keep_ratio")])
def test_values_out_of_range_are_refused(settings, text):
    with pytest.raises(SettingsError, match=text):
        RareTokensPruner(**settings)
