# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruners that select among the tokens of all slices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from conftest import SIZES

from monai_medpruner.networks import PrunedVLM
from monai_medpruner.pruners import Keys, NucleusPruner, ReceivedAttention, SliceTokens, TokenPruner

SLICE = NucleusPruner(tau=0.7, temperature=0.1, max_importance=1.2, min_tokens=2, contextual_ratio=0.1)
VOLUME = replace(SLICE, scope="volume")


def nucleus_of_all(volume: list[list[float]]) -> list[list[int]]:
    """Return the selection of :data:`VOLUME`, computed token by token in float64."""
    scores = [[min(score, 1.2) for score in one] for one in volume]
    # highest first; ties by slice, then by index
    order = sorted((-score, index, j) for index, one in enumerate(scores) for j, score in enumerate(one))
    total = math.fsum(math.exp(-score / 0.1) for score, _, _ in order)
    kept: list[list[int]] = [[] for _ in volume]
    mass = 0.0
    for score, index, j in order:
        if mass < 0.7 - 1e-9 or len(kept[index]) < 2:
            kept[index].append(j)
        mass += math.exp(-score / 0.1) / total
    return [sorted(one) for one in kept]


@pytest.mark.parametrize("merge_space", ["projected", "encoder"])
def test_vision_batch_size_changes_nothing(model, prompts, merge_space):
    """Slices of several sizes, so that batches are padded to different lengths, equal the loop over all slices."""
    inputs = prompts(SIZES)
    vlm = PrunedVLM(model, replace(VOLUME, merge_space=merge_space))
    whole = vlm.encode(**inputs)
    scores = [record.importance.tolist() for record in vlm.encode_each([SLICE], 1, **inputs)[0].records]
    assert [record.primary.nonzero().flatten().tolist() for record in whole.records] == nucleus_of_all(scores)
    assert nucleus_of_all(scores) != [nucleus_of_all([one])[0] for one in scores]
    for vision_batch_size in (1, 2, 3):
        parts = vlm.encode(vision_batch_size, **inputs)
        assert parts.grids == whole.grids
        for one, other in zip(parts.records, whole.records, strict=True):
            assert torch.equal(one.primary, other.primary)
            assert torch.equal(one.merged_into, other.merged_into)
            torch.testing.assert_close(one.importance, other.importance)
        for rows, others in zip(
            [parts.tokens, *parts.deepstack_features], [whole.tokens, *whole.deepstack_features], strict=True
        ):
            for one, other in zip(rows, others, strict=True):
                torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_with_other_pruners_that_share_the_encoder(model, prompts):
    inputs = prompts(SIZES)
    vlm = PrunedVLM(model)
    pruners = [VOLUME, None, SLICE, replace(VOLUME, tau=0.3, merge_space="encoder"), VOLUME]
    for pruner, found in zip(pruners, vlm.encode_each(pruners, 2, **inputs), strict=True):
        (alone,) = vlm.encode_each([pruner], 2, **inputs)
        assert [len(part) for part in (found.tokens, found.records)] == [len(SIZES)] * 2
        assert all(map(torch.equal, found.tokens, alone.tokens))
        assert all(map(torch.equal, found.keep, alone.keep))
        for rows, others in zip(found.deepstack_features, alone.deepstack_features, strict=True):
            assert all(map(torch.equal, rows, others))
        assert set(found.seconds) == set(alone.seconds) == {"encode", "select"}


def test_answers_from_the_whole_volume(model, prompts):
    inputs = prompts(SIZES)
    length = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    expected = PrunedVLM(model, VOLUME).generate(**inputs, **length)
    assert torch.equal(PrunedVLM(model, VOLUME, vision_batch_size=1).generate(**inputs, **length), expected)


def test_slices_of_one_call_are_one_volume(model, prompts):
    """Two prompts in one call share a nucleus, as documented; in separate calls each has its own."""
    both = PrunedVLM(model, VOLUME)
    together = both.encode(**prompts(SIZES[:3], SIZES[3:]))
    assert torch.equal(torch.cat(together.keep), torch.cat(both.encode(**prompts(SIZES)).keep))


@dataclass(frozen=True)
class Onlooker(TokenPruner):
    """Keeps every token and stores its inputs."""

    whole: bool = True

    given: ClassVar[list[SliceTokens]] = []

    @property
    def whole_volume(self) -> bool:
        return self.whole

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        self.given.append(slices)
        return slices.valid


@pytest.mark.parametrize("merge_space", ["projected", "encoder"])
def test_inputs_of_the_pruner(model, prompts, merge_space):
    inputs = prompts(SIZES)
    vlm = PrunedVLM(model, Onlooker(merge_space=merge_space), vision_batch_size=1)
    Onlooker.given.clear()
    vlm.encode(**inputs)
    (given,) = Onlooker.given
    vlm.pruner = Onlooker(merge_space=merge_space, whole=False)
    Onlooker.given.clear()
    vlm.encode(**inputs)
    assert len(Onlooker.given) == len(SIZES)
    assert given.numbers == list(range(len(SIZES)))
    assert given.grids == vlm.family.token_grids(inputs)
    assert given.patches_per_token == Onlooker.given[0].patches_per_token
    assert given.valid.sum(1).tolist() == [rows * columns for rows, columns in given.grids]
    for index, one in enumerate(Onlooker.given):
        assert one.numbers == [index]
        length = one.valid.shape[1]
        assert set(one.signals) == set(given.signals) == {ReceivedAttention(), Keys()}
        parts = [(given.tokens, one.tokens), (given.valid, one.valid)]
        parts += [(given.signal(signal), one.signal(signal)) for signal in given.signals]
        for whole, alone in parts:
            assert torch.equal(whole[index, :length], alone[0])
            assert not whole[index, length:].any()
