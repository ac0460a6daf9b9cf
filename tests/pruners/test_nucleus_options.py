# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the nucleus does beyond the paper: clipped sinks, a least number of tokens, a nucleus of the whole volume."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruner_oracles import nuclei_oracle

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import PRUNERS, Keys, NucleusPruner, ReceivedAttention, SliceTokens

# steps of 1/8: ties are frequent and exact, also after clipping
STEPS = st.integers(0, 60).map(lambda steps: steps / 8)
VOLUMES = st.lists(st.lists(STEPS, min_size=1, max_size=16), min_size=1, max_size=5)
TAUS = st.one_of(st.floats(0.01, 0.999), st.sampled_from([0.25, 0.5, 0.9, 1.0]))
TEMPERATURES = st.floats(0.05, 50)
CEILINGS = st.none() | st.integers(1, 64).map(lambda steps: steps / 8)
SCOPES = st.sampled_from(["slice", "volume"])


def padded(volume: list[list[float]], places: list[list[int]], length: int, patches_per_token: int = 1) -> SliceTokens:
    """Slices with nothing but scores, at their places; padding holds the highest scores of all."""
    scores = torch.full((len(volume), length), 1e6)
    valid = torch.zeros(len(volume), length, dtype=torch.bool)
    for index, (one, own) in enumerate(zip(volume, places, strict=True)):
        scores[index, own] = torch.tensor(one)
        valid[index, own] = True
    grids = [(1, len(one)) for one in volume]
    tokens = torch.zeros(len(volume), length, 1)
    return SliceTokens(tokens, valid, grids, {ReceivedAttention(): scores, Keys(): tokens}, patches_per_token)


def ragged(*volume: list[float], patches_per_token: int = 1) -> SliceTokens:
    return padded(list(volume), [list(range(len(one))) for one in volume], max(map(len, volume)) + 1, patches_per_token)


def kept(pruner: NucleusPruner, slices: SliceTokens) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in pruner(slices).primary]


@settings(max_examples=400, deadline=None)
@given(
    volume=VOLUMES,
    tau=TAUS,
    temperature=TEMPERATURES,
    clip=CEILINGS,
    least=st.integers(1, 20),
    scope=SCOPES,
    data=st.data(),
)
def test_equals_the_loop_on_ragged_slices(volume, tau, temperature, clip, least, scope, data):
    length = max(map(len, volume)) + data.draw(st.integers(0, 3))
    places = [sorted(data.draw(st.permutations(range(length)))[: len(one)]) for one in volume]
    pruner = NucleusPruner(tau=tau, temperature=temperature, max_importance=clip, min_tokens=least, scope=scope)
    expected = nuclei_oracle(volume, tau, temperature, clip, least, scope)
    found = kept(pruner, padded(volume, places, length))
    assert found == [[own[j] for j in one] for own, one in zip(places, expected, strict=True)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([1, 2, 4, 16]), min_size=1, max_size=4),
    tau=TAUS,
    temperature=st.floats(0.01, 2),
    clip=CEILINGS,
    scope=SCOPES,
    data=st.data(),
)
def test_the_papers_scale_divides_what_is_clipped(lengths, tau, temperature, clip, scope, data):
    # powers of two divide float32 exactly
    volume = [data.draw(st.lists(STEPS, min_size=length, max_size=length)) for length in lengths]
    pruner = NucleusPruner(
        tau=tau,
        temperature=temperature,
        importance_scale="paper",
        max_importance=clip,
        min_tokens=2,
        scope=scope,
    )
    expected = nuclei_oracle(volume, tau, temperature, clip, 2, scope, patches=4)
    assert kept(pruner, ragged(*volume, patches_per_token=4)) == expected


@settings(max_examples=200, deadline=None)
@given(one=st.lists(STEPS, min_size=1, max_size=40), tau=TAUS, temperature=TEMPERATURES, clip=CEILINGS)
@pytest.mark.parametrize("least", [1, 3])
def test_a_volume_of_one_slice_is_a_slice(one, tau, temperature, clip, least):
    both = [
        NucleusPruner(tau=tau, temperature=temperature, max_importance=clip, min_tokens=least, scope=scope)(ragged(one))
        for scope in ("slice", "volume")
    ]
    assert torch.equal(both[0].primary, both[1].primary)


@settings(max_examples=100, deadline=None)
@given(volume=VOLUMES, tau=TAUS, temperature=TEMPERATURES, clip=CEILINGS, scope=SCOPES)
def test_more_min_tokens_only_add(volume, tau, temperature, clip, scope):
    before = torch.zeros(())
    for least in (1, 2, 5, 100):
        pruner = NucleusPruner(tau=tau, temperature=temperature, max_importance=clip, min_tokens=least, scope=scope)
        mask = pruner(ragged(*volume)).primary
        assert all(count >= min(least, len(one)) for count, one in zip(mask.sum(1).tolist(), volume, strict=True))
        assert (mask >= before).all()
        before = mask


def test_a_clipped_sink_leaves_the_nucleus_to_others():
    """A sink holds 10 % of the attention of 256 tokens, a finding of 8 tokens three times the others' share."""
    importance = torch.full((256,), 0.9 * 256 / (247 + 8 * 3))
    importance[100:108] *= 3
    importance[7] = 0.1 * 256
    slices = ragged(importance.tolist())
    assert kept(NucleusPruner(tau=0.75, temperature=0.25), slices) == [[7]]
    assert kept(NucleusPruner(tau=0.75, temperature=0.25, max_importance=2.0), slices) == [[7, *range(100, 108)]]


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_clipped_tokens_stay_in_their_order(scope):
    slices = ragged([3.0, 9.0, 5.0, 7.0])
    assert kept(NucleusPruner(tau=0.5, temperature=0.01, max_importance=4.0, scope=scope), slices) == [[1, 2]]
    assert kept(NucleusPruner(tau=0.1, temperature=0.01, max_importance=4.0, min_tokens=1, scope=scope), slices) == [
        [1]
    ]


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_the_highest_stay_where_the_mass_of_all_but_one_is_zero(scope):
    """Also behind padding, whose mass is zero likewise."""
    slices = padded([[9.0, 1.0, 3.0, 2.0], [9.0]], [[0, 2, 4, 5], [3]], 6)
    pruner = NucleusPruner(temperature=1e-6, min_tokens=3, scope=scope)
    assert kept(pruner, slices) == [[0, 4, 5], [3]]


def test_slices_without_anything_of_note_leave_their_tokens_to_others():
    flat, busy = [1.0] * 8, [0.25] * 4 + [1.75] * 4
    own = kept(NucleusPruner(tau=0.75, temperature=0.25), ragged(flat, busy, flat))
    whole = kept(NucleusPruner(tau=0.75, temperature=0.25, scope="volume"), ragged(flat, busy, flat))
    assert own == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7], [0, 1, 2, 3, 4, 5]]
    assert whole == [[0], [4, 5, 6, 7], [0]]  # no slice is empty


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_tau_one_keeps_every_token_whatever_the_scope(scope):
    slices = ragged([0.0, 1e4, 0.0], [1.0])
    pruner = NucleusPruner(tau=1, temperature=1e-3, max_importance=5.0, min_tokens=2, scope=scope)
    assert torch.equal(pruner(slices).primary, slices.valid)


def test_who_needs_the_whole_volume():
    assert NucleusPruner(scope="volume").whole_volume
    assert [name for name, pruner in PRUNERS.items() if pruner().whole_volume] == ["rare_tokens", "local_contrast"]


@pytest.mark.parametrize(
    "wrong",
    [{"max_importance": clip} for clip in (0, -1.0, math.nan, math.inf)]
    + [{"min_tokens": least} for least in (0, -3, 1.5, math.nan, None)]
    + [{"scope": scope} for scope in ("study", "", None)],
    ids=str,
)
def test_settings_outside_their_range(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        NucleusPruner(**wrong)
