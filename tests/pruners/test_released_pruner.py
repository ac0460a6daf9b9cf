# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The released code's order of things: nucleus and merging of every slice, then the slice filter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruner_oracles import merging_oracle

from monai_medpruner.errors import BudgetError, SettingsError
from monai_medpruner.networks.slice_signals import anchor_slices_of
from monai_medpruner.pruners import (
    AnchorSlices,
    Keys,
    MedPrunerReleasedPruner,
    NucleusPruner,
    ReceivedAttention,
    SliceTokens,
)

ANCHORS = AnchorSlices(0.05)


def two_slices(kept: list[bool], importance: list[float]) -> SliceTokens:
    """Slices of four tokens 0, 1, 2, 3 with the same importance, and keys that are all alike."""
    tokens = torch.arange(4.0)[None, :, None].expand(len(kept), 4, 2).clone()
    signals = {
        ReceivedAttention(): torch.tensor(importance).expand(len(kept), 4),
        Keys(): torch.ones(len(kept), 4, 3),
        ANCHORS: torch.tensor(kept),
    }
    return SliceTokens(tokens, torch.ones(len(kept), 4, dtype=torch.bool), [(2, 2)] * len(kept), signals)


def test_by_hand_where_the_first_token_is_contextual():
    """Token 3 holds the mass; 0 is the first of the others, and 1 and 2 are merged into it: 0 + (1 + 2) / 2."""
    slices = two_slices([True, False], [0.0, 0.0, 0.0, 50.0])
    pruned = MedPrunerReleasedPruner(tau=0.5)(slices)
    assert pruned.primary.tolist() == [[False, False, False, True], [False] * 4]
    assert pruned.contextual.tolist() == [[True, False, False, False]] * 2
    assert pruned.merged_into.tolist() == [[0, 0, 0, 3], [0, 0, 0, -1]]
    assert pruned.tokens[:, 0].tolist() == [[1.5, 1.5]] * 2
    assert pruned.dropped.tolist() == [False, True]


def test_by_hand_where_the_first_token_is_selected():
    """It stays as it is; what was merged into the other slice's contextual token vanishes with that."""
    slices = two_slices([True, False], [50.0, 0.0, 0.0, 0.0])
    pruned = MedPrunerReleasedPruner(tau=0.5)(slices)
    assert pruned.primary.tolist() == [[True, False, False, False]] * 2
    assert pruned.contextual.tolist() == [[False, True, False, False], [False] * 4]
    assert pruned.merged_into.tolist() == [[0, 1, 1, 1], [0, -1, -1, -1]]
    assert pruned.tokens[1, 0].tolist() == [0.0, 0.0]


def test_without_contextual_tokens_the_first_one_is_left_all_the_same():
    pruned = MedPrunerReleasedPruner(tau=0.5, contextual_ratio=0.0)(two_slices([True, False], [0.0, 0.0, 0.0, 50.0]))
    assert pruned.primary.tolist() == [[False, False, False, True], [True, False, False, False]]
    assert pruned.merged_into.tolist() == [[-1, -1, -1, 3], [0, -1, -1, -1]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kept=st.lists(st.booleans(), min_size=1, max_size=5), tau=st.floats(0.1, 1.0))
def test_the_two_masks_of_the_source(seed, kept, tau):
    """Kept is what both masks hold, the nucleus' and the filter's, which holds one token of a dropped slice."""
    random = np.random.default_rng(seed)
    kept[0] = True
    count = len(kept)
    importance, keys = (random.standard_normal((count, 12, *more)).astype(np.float32) for more in ((), (3,)))
    tokens = random.standard_normal((count, 12, 4)).astype(np.float32)
    signals = {ReceivedAttention(): torch.from_numpy(importance * 4), Keys(): torch.from_numpy(keys)}
    signals[ANCHORS] = torch.tensor(kept)
    valid = torch.ones(count, 12, dtype=torch.bool)
    slices = SliceTokens(torch.from_numpy(tokens), valid, [(3, 4)] * count, signals)
    pruned = MedPrunerReleasedPruner(tau=tau)(slices)
    nucleus = NucleusPruner(tau=tau)(slices)
    for row, whole in enumerate(kept):
        selected = nucleus.primary[row].tolist()
        merged, targets, _, _ = merging_oracle(tokens[row], keys[row], selected, 0.05)
        token_mask = [one or place in targets for place, one in enumerate(selected)]
        slice_mask = [whole or place == 0 for place in range(12)]
        both = [one and other for one, other in zip(token_mask, slice_mask, strict=True)]
        assert pruned.keep[row].tolist() == both
        np.testing.assert_allclose(pruned.tokens[row][torch.tensor(both)], merged[both], rtol=1e-5, atol=1e-5)
        assert whole or sum(both) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), kept=st.lists(st.booleans(), min_size=1, max_size=6), room=st.integers(0, 60))
def test_budget(seed, kept, room):
    """Never exceeded, and no token is taken from a kept slice for one that is dropped anyway."""
    generator = torch.Generator().manual_seed(seed)
    kept[0] = True
    count = len(kept)
    signals = {ReceivedAttention(): torch.rand(count, 40, generator=generator) * 4}
    signals |= {Keys(): torch.randn(count, 40, 3, generator=generator), ANCHORS: torch.tensor(kept)}
    valid = torch.ones(count, 40, dtype=torch.bool)
    slices = SliceTokens(torch.randn(count, 40, 2, generator=generator), valid, [(5, 8)] * count, signals)
    least = 3 * sum(kept) + count - sum(kept)  # one selected, two contextual tokens of each kept slice
    pruned = MedPrunerReleasedPruner(tau=1.0)(slices, least + room)
    assert int(pruned.keep.sum()) == min(least + room, 40 * sum(kept) + count - sum(kept))
    with pytest.raises(BudgetError):
        MedPrunerReleasedPruner(tau=1.0)(slices, least - 1)


def test_budget_below_the_number_of_slices():
    with pytest.raises(BudgetError, match="2 visual tokens is too small for 3 slices"):
        MedPrunerReleasedPruner()(two_slices([True, False, False], [1.0] * 4), 2)


def test_settings():
    pruner = MedPrunerReleasedPruner(threshold=0.1)
    assert pruner.signals == {ReceivedAttention(), Keys(), AnchorSlices(0.1)}
    with pytest.raises(SettingsError, match=r"needs AnchorSlices\(threshold=0.1\)"):
        pruner(two_slices([True], [1.0] * 4))
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="at least 0"):
            replace(pruner, threshold=wrong)
        with pytest.raises(SettingsError, match="at least 0"):
            AnchorSlices(wrong)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 0.5])
def test_anchors_are_those_of_a_loop(threshold):
    """The anchor is the last kept slice, not the slice before."""
    steps = np.random.default_rng(3).uniform(-0.1, 0.2, (40, 1, 1)).cumsum(0)
    pixels = (steps + np.random.default_rng(4).uniform(-0.05, 0.05, (40, 6, 5))).astype(np.float32)
    anchor, expected = 0, [True]
    for index in range(1, 40):
        distance = np.abs(pixels[index].astype(np.float64) - pixels[anchor]).mean()
        expected.append(bool(distance > threshold))
        anchor = index if expected[-1] else anchor
    assert anchor_slices_of(torch.from_numpy(pixels).unbind(), threshold).tolist() == expected
    assert 1 < sum(expected) <= 40


def test_a_slice_of_another_size_is_kept():
    slices = [torch.zeros(4), torch.zeros(4), torch.zeros(6), torch.zeros(6), torch.zeros(4)]
    assert anchor_slices_of(slices, 0.05).tolist() == [True, False, True, False, True]
