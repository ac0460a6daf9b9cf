# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pruner_oracles import merging_oracle, merging_targets

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import merge_contextual


@st.composite
def ragged_slices(draw) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One to four slices: tokens, keys and the mask of the selected ones."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ties = draw(st.booleans())
    slices = []
    for length in draw(st.lists(st.integers(1, 45), min_size=1, max_size=4)):
        tokens = random.normal(size=(length, 5)).astype(np.float32)
        # lengths must not matter; keys on axes tie exactly, and some of them are zero
        sizes = 2.0 ** random.integers(-8, 8, size=(length, 1))
        keys = np.eye(4)[random.integers(0, 4, length)] if ties else random.normal(size=(length, 4))
        keys = (keys * sizes * (random.random((length, 1)) > 0.1)).astype(np.float32)
        slices.append((tokens, keys, random.random(length) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))))
    return slices


def padded(arrays: list[np.ndarray], length: int, filler: float | bool) -> torch.Tensor:
    rows = [np.concatenate([a, np.full((length - len(a), *a.shape[1:]), filler, a.dtype)]) for a in arrays]
    return torch.from_numpy(np.stack(rows))


@settings(max_examples=150, deadline=None)
@given(slices=ragged_slices(), ratio=st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.5, 1.0]), padding=st.integers(0, 3))
def test_equals_the_loop_on_ragged_slices(slices, ratio, padding):
    length = max(len(tokens) for tokens, _, _ in slices) + padding
    tokens, keys = (padded([one[part] for one in slices], length, math.nan) for part in (0, 1))
    keep = padded([one[2] for one in slices], length, True)  # a mask that is wrong at padding
    valid = padded([np.ones(len(one[2]), bool) for one in slices], length, False)
    merged, contextual, merged_into = merge_contextual(tokens, keys, keep, ratio, valid)
    assert merged.dtype == torch.float32
    assert merged_into.dtype == torch.int64
    for index, one in enumerate(slices):
        size = len(one[2])
        expected, targets, expected_into, closest = merging_oracle(*one, ratio)
        assume(closest > 1e-5)  # closer calls than float32 can make
        alone = merge_contextual(*(torch.from_numpy(part)[None] for part in one), ratio)
        batched = [merged[index, :size], contextual[index, :size], merged_into[index, :size]]
        for tokens_now, contextual_now, into_now in (batched, [part[0] for part in alone]):
            assert contextual_now.nonzero().flatten().tolist() == targets
            assert into_now.tolist() == expected_into
            survives = torch.from_numpy(one[2]) | contextual_now
            np.testing.assert_allclose(tokens_now[survives], expected[survives.numpy()], rtol=1e-5, atol=1e-6)
        assert not contextual[index, size:].any()
        assert (merged_into[index, size:] == -1).all()


@settings(max_examples=60, deadline=None)
@given(slices=ragged_slices(), ratio=st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_merged_into(slices, ratio):
    for tokens, keys, keep in slices:
        selected = torch.from_numpy(keep)[None]
        _, contextual, merged_into = merge_contextual(
            torch.from_numpy(tokens)[None], torch.from_numpy(keys)[None], selected, ratio
        )
        itself = torch.arange(len(keep))[None]
        assert not (contextual & selected).any()
        assert torch.equal(merged_into == itself, selected | contextual)
        others = ~(selected | contextual)
        if ratio == 0:
            assert (merged_into[others] == -1).all()
        else:
            assert contextual[0, merged_into[others]].all()


@pytest.mark.parametrize(
    ("length", "remaining", "ratio", "numbers"),
    [
        (20, 10, 0.25, [0, 2, 4, 6, 8]),
        (20, 14, 0.25, [0, 2, 4, 6, 8]),  # an integer stride: the last four are no targets
        (40, 39, 0.05, [0, 19]),  # not 38, though it is the third multiple of the stride
        (100, 60, 0.05, [0, 12, 24, 36, 48]),
        (100, 60, 0.29, list(range(0, 56, 2))),  # 0.29 * 100 lies below 29 in floating point, so n = 28
        (10, 7, 0.05, [0]),  # n = 0 becomes 1
        (20, 3, 0.25, [0, 1, 2]),  # fewer than n
        (20, 5, 0.25, [0, 1, 2, 3, 4]),
        (20, 20, 1.0, list(range(20))),
        (20, 0, 0.25, []),
        (1, 1, 0.05, [0]),
        (1, 0, 0.05, []),
    ],
)
def test_targets(length, remaining, ratio, numbers):
    order = np.random.default_rng(length).permutation(length)
    left = sorted(order[:remaining].tolist())
    keep = torch.ones(1, length, dtype=torch.bool)
    keep[0, left] = False
    _, contextual, _ = merge_contextual(torch.randn(1, length, 3), torch.randn(1, length, 3), keep, ratio)
    expected = [left[number] for number in numbers]
    assert contextual[0].nonzero().flatten().tolist() == expected == merging_targets(length, left, ratio)


@pytest.mark.parametrize("axis", [None, 1])
def test_equal_similarities_go_to_the_first_target(axis):
    keys = torch.zeros(1, 40, 3)
    if axis is not None:
        keys[..., axis] = 1.0
    tokens = torch.randn(1, 40, 2, generator=torch.Generator().manual_seed(0))
    merged, contextual, merged_into = merge_contextual(tokens, keys, torch.zeros(1, 40, dtype=torch.bool), 0.1)
    targets = [0, 10, 20, 30]
    assert contextual[0].nonzero().flatten().tolist() == targets
    assert merged_into[0].tolist() == [j if j in targets else 0 for j in range(40)]
    others = [j for j in range(40) if j not in targets]
    torch.testing.assert_close(merged[0, 0], tokens[0, 0] + tokens[0, others].mean(0))
    assert torch.equal(merged[0, targets[1:]], tokens[0, targets[1:]])  # nothing assigned, nothing added


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_means_are_taken_in_float32_and_the_type_is_kept(dtype):
    generator = torch.Generator().manual_seed(3)
    # 390 tokens a mean, all near 30: half precision would lose digits on the way
    tokens = (30 + torch.randn(1, 400, 64, generator=generator)).to(dtype)
    keys = torch.randn(1, 400, 8, generator=generator).to(dtype)
    keep = torch.zeros(1, 400, dtype=torch.bool)
    keep[:, 5:9] = True
    merged, contextual, merged_into = merge_contextual(tokens, keys, keep, 0.003)
    expected, targets, expected_into, _ = merging_oracle(
        tokens[0].double().numpy(), keys[0].double().numpy(), keep[0].tolist(), 0.003
    )
    assert merged.dtype == dtype
    assert contextual[0].nonzero().flatten().tolist() == targets
    assert merged_into[0].tolist() == expected_into
    # half precision: rounded once, at the end
    error = 1e-5 if dtype == torch.float32 else 0.0
    torch.testing.assert_close(merged[0, targets], torch.from_numpy(expected[targets]).to(dtype), rtol=error, atol=0.0)


def test_autocast_changes_nothing():
    generator = torch.Generator().manual_seed(4)
    tokens, keys = (torch.randn(2, 80, 16, generator=generator) for _ in range(2))
    keep = torch.rand(2, 80, generator=generator) > 0.9
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = merge_contextual(tokens, keys, keep, 0.1)
    for got, expected in zip(inside, merge_contextual(tokens, keys, keep, 0.1), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_selected_tokens_keep_every_bit_and_do_not_spread(dtype):
    tokens = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(5)).to(dtype)
    tokens[0, 3] = torch.tensor([math.inf, -math.inf, math.nan, -0.0])
    keep = torch.zeros(1, 30, dtype=torch.bool)
    keep[:, ::3] = True
    merged, contextual, _ = merge_contextual(tokens, torch.randn(1, 30, 4), keep, 0.1)
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(merged[keep].view(bits), tokens[keep].view(bits))
    assert merged[contextual].isfinite().all()
    assert not torch.equal(merged[contextual], tokens[contextual])


@pytest.mark.parametrize("ratio", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_inputs_stay_as_they_are(ratio, share):
    generator = torch.Generator().manual_seed(6)
    tokens, keys = (torch.randn(2, 40, 4, generator=generator) for _ in range(2))
    keep = torch.rand(2, 40, generator=generator) < share
    valid = torch.ones_like(keep)
    valid[1, 25:] = False
    given_in = tokens, keys, keep, valid
    before = [part.clone() for part in given_in]
    merge_contextual(tokens, keys, keep, ratio, valid)
    assert all(torch.equal(part, copy) for part, copy in zip(given_in, before, strict=True))


@pytest.mark.parametrize("ratio", [-0.01, 1.01, math.nan, math.inf])
def test_bad_ratio(ratio):
    tokens = torch.zeros(1, 4, 2)
    with pytest.raises(SettingsError, match="ratio"):
        merge_contextual(tokens, tokens, torch.ones(1, 4, dtype=torch.bool), ratio)
