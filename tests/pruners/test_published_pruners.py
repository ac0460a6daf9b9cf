# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""VisionZip, HiPrune, DivPrune and CDPruner: small cases by hand, and against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from published_oracles import cdpruner_oracle, divprune_oracle, hiprune_oracle, shares, visionzip_oracle

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import (
    CDPrunerPruner,
    ClassAttention,
    DivPrunePruner,
    HiPrunePruner,
    Keys,
    QuestionEmbedding,
    ReceivedAttention,
    SliceTokens,
    VisionZipPruner,
)
from monai_medpruner.testing import padded_batch

PRUNERS = [VisionZipPruner, HiPrunePruner, DivPrunePruner, CDPrunerPruner]
GRIDS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3)
RATIOS = st.integers(1, 100).map(lambda percent: percent / 100)


def one_slice(tokens, grid, **signals) -> SliceTokens:
    tokens = torch.as_tensor(tokens, dtype=torch.float32)[None]
    names = {"received": ReceivedAttention(), "middle": ReceivedAttention(0.5), "class_": ClassAttention()}
    names |= {"keys": Keys()}
    given_ = {names[name]: torch.as_tensor(one, dtype=torch.float32)[None] for name, one in signals.items()}
    return SliceTokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), [grid], given_, numbers=[0])


def with_question(slices: SliceTokens, question) -> SliceTokens:
    signals = {QuestionEmbedding(): torch.as_tensor(question, dtype=torch.float32)}
    return SliceTokens(slices.tokens, slices.valid, slices.grids, signals, numbers=slices.numbers)


def places(mask: torch.Tensor, row: int = 0) -> list[int]:
    return mask[row].nonzero().flatten().tolist()


def drawn(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


# --- small cases by hand --------------------------------------------------------------------------------------------


def test_visionzip_by_hand():
    """Eight tokens, of which four stay: three dominant ones, and one into which the others are merged."""
    tokens = np.arange(8, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    slices = one_slice(tokens, (2, 4), received=[0, 5, 1, 0, 4, 0, 3, 0], keys=np.eye(8))
    pruned = VisionZipPruner(keep_ratio=0.5, contextual_ratio=0.25)(slices)
    assert places(pruned.primary) == [1, 4, 6]
    # of the others, 0 2 3 5 7, the first is the target; none is similar to it, yet it is the nearest
    assert places(pruned.contextual) == [0]
    assert pruned.merged_into[0].tolist() == [0, 1, 0, 0, 4, 0, 6, 0]
    assert pruned.tokens[0, 0].tolist() == [(2 + 3 + 5 + 7) / 4] * 2
    assert VisionZipPruner(contextual_ratio=0.0).signals == {ReceivedAttention()}


def test_visionzip_splits_as_the_source():
    """54 dominant and 10 contextual tokens of 64; 108 and 20, 162 and 30 likewise, of LLaVA's 576."""
    for kept, dominant in ((64, 54), (128, 108), (192, 162)):
        slices = SliceTokens(torch.zeros(1, 576, 1), torch.ones(1, 576, dtype=torch.bool), [(24, 24)])
        pruner = VisionZipPruner(keep_ratio=kept / 576)
        assert pruner.selected_counts(slices) == [dominant]
        assert pruner.contextual_counts(slices) == [kept - dominant]


def test_visionzip_by_the_class_token():
    slices = one_slice(np.eye(4), (2, 2), class_=[0, 1, 3, 2], keys=np.eye(4))
    pruner = VisionZipPruner(keep_ratio=0.5, contextual_ratio=0.0, attention="class")
    assert pruner.signals == {ClassAttention()}
    assert places(pruner(slices).keep) == [2, 3]


def test_hiprune_by_hand():
    """One anchor in the corner with its two neighbors, then the last layer's highest."""
    middle = np.arange(20, 0, -1.0)
    last = np.arange(20.0)
    slices = one_slice(np.eye(20), (4, 5), middle=middle, received=last)
    pruner = HiPrunePruner(keep_ratio=0.25, object_share=1.0)
    assert places(pruner(slices).keep) == [0, 1, 5, 18, 19]
    # two anchors, 0 and 1; buffers 2, 5 and 6
    assert places(HiPrunePruner(keep_ratio=0.5, object_share=1.0)(slices).keep) == [0, 1, 2, 5, 6, 15, 16, 17, 18, 19]
    # the paper's share: round(0.1 * 10 / 5) is no anchor at all
    assert places(HiPrunePruner(keep_ratio=0.5)(slices).keep) == list(range(10, 20))


def test_hiprune_knows_the_edges_of_the_grid():
    """The last token of a row is no neighbor of the first one of the next row; buffers give way to the budget."""
    middle = np.zeros(20)
    middle[9] = 5
    middle[[4, 8, 14]] = 3, 1, 2
    slices = one_slice(np.eye(20), (4, 5), middle=middle, received=np.eye(20)[10])
    assert places(HiPrunePruner(keep_ratio=0.25, object_share=1.0)(slices).keep) == [4, 8, 9, 10, 14]
    assert places(HiPrunePruner(keep_ratio=0.15, object_share=1.0)(slices).keep) == [4, 9, 14]


def test_divprune_by_hand():
    """Unit vectors at 0, 10, 90, 180 and 100 degrees: the loneliest, the opposite, then the one in between."""
    degrees = np.deg2rad([0, 10, 90, 180, 100])
    tokens = np.stack([np.cos(degrees), np.sin(degrees)], 1) * [[1], [2], [3], [4], [5]]
    slices = one_slice(tokens, (1, 5))
    assert places(DivPrunePruner(keep_ratio=0.2)(slices).keep) == [3]
    assert places(DivPrunePruner(keep_ratio=0.4)(slices).keep) == [0, 3]
    assert places(DivPrunePruner(keep_ratio=0.6)(slices).keep) == [0, 2, 3]
    assert places(DivPrunePruner(keep_ratio=0.8)(slices).keep) == [0, 1, 2, 3]


def test_cdpruner_by_hand():
    """The most relevant token, not its copy, then what is new and relevant; a copy only when nothing else is left."""
    tokens = [[1.0, 0, 0], [1, 0, 0], [0.6, 0.8, 0], [0, 0, 1], [0, 0, -1]]
    slices = with_question(one_slice(tokens, (1, 5)), [[2.0, 0, 0.5]])
    assert places(CDPrunerPruner(keep_ratio=0.2)(slices).keep) == [0]
    # relevance: 1, 1, about 0.68, 0.39, 0: gains of 0, 0.68² * 0.64 and 0.39²
    assert places(CDPrunerPruner(keep_ratio=0.4)(slices).keep) == [0, 2]
    assert places(CDPrunerPruner(keep_ratio=0.6)(slices).keep) == [0, 2, 3]
    assert places(CDPrunerPruner(keep_ratio=0.8)(slices).keep) == [0, 1, 2, 3]
    other = with_question(one_slice(tokens, (1, 5)), [[0, 0, -3.0]])
    assert places(CDPrunerPruner(keep_ratio=0.2)(other).keep) == [4]


def test_cdpruner_where_no_token_is_more_relevant():
    slices = with_question(one_slice(np.ones((4, 3)), (2, 2)), np.ones((2, 3)))
    assert CDPrunerPruner().score(slices).tolist() == [[1.0] * 4]
    assert places(CDPrunerPruner(keep_ratio=0.75)(slices).keep) == [0, 1, 2]


# --- against loops in float64 ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(GRIDS, RATIOS, st.sampled_from([0.0, 0.15625, 0.5, 1.0]), st.integers(0, 2**32 - 1))
def test_visionzip_against_the_loop(grids, keep_ratio, contextual_ratio, seed):
    random = np.random.default_rng(seed)
    drawn_ = [[drawn(random, r * c, 3), drawn(random, r * c, 4), random.permutation(r * c)] for r, c in grids]
    slices = [
        one_slice(tokens, grid, keys=keys, received=attention)
        for grid, (tokens, keys, attention) in zip(grids, drawn_, strict=True)
    ]
    pruned = VisionZipPruner(keep_ratio=keep_ratio, contextual_ratio=contextual_ratio)(padded_batch(slices))
    for row, (tokens, keys, attention) in enumerate(drawn_):
        length = len(tokens)
        selected, contextual = shares(length, keep_ratio, contextual_ratio)
        merged, dominant, targets, merged_into, margin = visionzip_oracle(
            tokens.astype(float), keys.astype(float), attention.tolist(), selected, contextual
        )
        assume(margin > 1e-5)
        assert places(pruned.primary, row) == dominant
        assert places(pruned.contextual, row) == targets
        assert pruned.merged_into[row, :length].tolist() == merged_into
        kept = sorted([*dominant, *targets])
        np.testing.assert_allclose(pruned.tokens[row, kept].numpy(), merged[kept], rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(GRIDS, RATIOS, st.integers(0, 10).map(lambda tenths: tenths / 10), st.integers(0, 2**32 - 1))
def test_hiprune_against_the_loop(grids, keep_ratio, object_share, seed):
    random = np.random.default_rng(seed)
    # few values, so that there are equals
    attention = [random.integers(0, 6, (2, r * c)).astype(np.float32) for r, c in grids]
    slices = [
        one_slice(np.ones((len(middle), 1)), grid, middle=middle, received=last)
        for grid, (middle, last) in zip(grids, attention, strict=True)
    ]
    pruned = HiPrunePruner(keep_ratio=keep_ratio, object_share=object_share)(padded_batch(slices))
    for row, (grid, (middle, last)) in enumerate(zip(grids, attention, strict=True)):
        count, _ = shares(grid[0] * grid[1], keep_ratio, 0)
        assert places(pruned.keep, row) == hiprune_oracle(middle.tolist(), last.tolist(), grid, count, object_share)


@settings(max_examples=60, deadline=None)
@given(GRIDS, RATIOS, st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_divprune_against_the_loop(grids, keep_ratio, copies, seed):
    random = np.random.default_rng(seed)
    volume = [drawn(random, r * c, 8) for r, c in grids]
    for tokens in volume:
        tokens[len(tokens) - min(copies, len(tokens) - 1) :] = tokens[0]
    pruned = DivPrunePruner(keep_ratio=keep_ratio)(padded_batch([*map(one_slice, volume, grids)]))
    for row, tokens in enumerate(volume):
        count, _ = shares(len(tokens), keep_ratio, 0)
        expected, margin = divprune_oracle(tokens.astype(float), count)
        assume(margin > 1e-4)
        assert places(pruned.keep, row) == expected


@settings(max_examples=60, deadline=None)
@given(GRIDS, RATIOS, st.integers(0, 2**32 - 1))
def test_cdpruner_against_the_determinant(grids, keep_ratio, seed):
    random = np.random.default_rng(seed)
    volume, question = [drawn(random, r * c, 32) for r, c in grids], drawn(random, 3, 32)
    batch = padded_batch([with_question(one_slice(*one), question) for one in zip(volume, grids, strict=True)])
    pruned = CDPrunerPruner(keep_ratio=keep_ratio)(batch)
    for row, tokens in enumerate(volume):
        count, _ = shares(len(tokens), min(keep_ratio, 0.8), 0)
        if len(tokens) > 1 and keep_ratio <= 0.8:
            expected, margin = cdpruner_oracle(tokens.astype(float), question.astype(float), count)
            assume(margin > 1e-4)
            assert places(pruned.keep, row) == expected


# --- what they share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("keep_ratio", [0, -0.1, 1.1, math.nan])
def test_keep_ratio_outside_its_range(pruner, keep_ratio):
    with pytest.raises(SettingsError, match="keep_ratio"):
        pruner(keep_ratio=keep_ratio)


@pytest.mark.parametrize("pruner", PRUNERS)
@settings(max_examples=40, deadline=None)
@given(grid=st.tuples(st.integers(1, 12), st.integers(1, 12)), keep_ratio=RATIOS, contextual_ratio=RATIOS)
@example(grid=(3, 10), keep_ratio=0.7, contextual_ratio=0.5)  # whose product is just below a whole number
def test_never_above_the_share(pruner, grid, keep_ratio, contextual_ratio):
    """Contextual tokens are counted; at least one token stays."""
    length = grid[0] * grid[1]
    slices = one_slice(np.eye(length), grid, received=np.arange(length), middle=np.ones(length), keys=np.eye(length))
    slices = SliceTokens(
        slices.tokens,
        slices.valid,
        slices.grids,
        {**slices.signals, QuestionEmbedding(): torch.ones(2, length)},
        numbers=[0],
    )
    for ratio in (0.0, contextual_ratio):
        pruned = pruner(keep_ratio=keep_ratio, contextual_ratio=ratio)(slices)
        assert (int(pruned.primary.sum()), int(pruned.contextual.sum())) == shares(length, keep_ratio, ratio)


@pytest.mark.parametrize(
    ("pruner", "wrong", "message"),
    [
        (VisionZipPruner, {"attention": "query"}, "attention must be 'received' or 'class'"),
        (HiPrunePruner, {"object_share": 1.2}, "object_share must lie"),
        (HiPrunePruner, {"object_block": 1.0}, "share of the encoder's depth"),
        (HiPrunePruner, {"object_block": 0.0}, "share of the encoder's depth"),
        (HiPrunePruner, {"object_block": "last"}, "object_block must be"),
        (CDPrunerPruner, {"merge_space": "encoder"}, "merge_space must be 'projected'"),
    ],
)
def test_settings_outside_their_range(pruner, wrong, message):
    with pytest.raises(SettingsError, match=message):
        pruner(**wrong)


def test_cdpruner_without_a_word():
    slices = with_question(one_slice(np.eye(4), (2, 2)), np.ones((0, 4)))
    with pytest.raises(SettingsError, match="at least one token"):
        CDPrunerPruner()(slices)
