# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruners that are wrong do not pass what others run on theirs; the toy pruner does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from toy_pruner import LargestNormPruner

from monai_medpruner.pruners import (
    ClassAttention,
    HiddenStates,
    NucleusPruner,
    QuestionEmbedding,
    ReceivedAttention,
    Signal,
    SlicePositions,
    SliceTokens,
    TokenPruner,
)
from monai_medpruner.testing import check_pruner


@dataclass(frozen=True)
class AsksForEverything(LargestNormPruner):
    """Its scores depend on every kind of signal."""

    @property
    def signals(self) -> frozenset[Signal]:
        asked = {ReceivedAttention(2), ClassAttention(), HiddenStates(), SlicePositions(), QuestionEmbedding()}
        return frozenset(asked)

    def score(self, slices: SliceTokens) -> torch.Tensor:
        attention = slices.signal(ReceivedAttention(2)) + slices.signal(ClassAttention())
        alike = slices.signal(HiddenStates()) @ slices.signal(QuestionEmbedding()).mean(0)
        score = attention + alike * (slices.signal(SlicePositions())[:, None] + 1)
        return score.masked_fill(~slices.valid, -torch.inf)


def test_the_toy_pruner():
    check_pruner(LargestNormPruner())
    check_pruner(LargestNormPruner(count=1, block=-2, contextual_ratio=0.1))


def test_every_signal_can_be_asked_for():
    check_pruner(AsksForEverything())


@dataclass(frozen=True)
class KeepsPadding(LargestNormPruner):
    def __call__(self, slices):
        pruned = super().__call__(slices)
        places = torch.arange(slices.valid.shape[1])
        every = torch.ones_like(slices.valid)
        return replace(pruned, primary=every, merged_into=places.expand(every.shape).clone())


@dataclass(frozen=True)
class LeavesASliceEmpty(LargestNormPruner):
    def select(self, score, slices):
        return super().select(score, slices) & (slices.valid.sum(1, keepdim=True) > 1)


@dataclass(frozen=True)
class LooksAtTheOtherSlices(LargestNormPruner):
    def select(self, score, slices):
        return score >= score.flatten().topk(min(20, score.numel())).values[-1].clamp(max=score.amax(1, keepdim=True))


@dataclass(frozen=True)
class MergesIntoDropped(LargestNormPruner):
    def merge(self, slices, primary):
        pruned = super().merge(slices, primary)
        return replace(pruned, merged_into=pruned.merged_into.masked_fill(slices.valid & ~pruned.keep, 0))


@dataclass(frozen=True)
class ChangesTokens(LargestNormPruner):
    def merge(self, slices, primary):
        slices.tokens.add_(1)
        return super().merge(slices, primary)


@dataclass(frozen=True)
class DrawsAnew(LargestNormPruner):
    def score(self, slices):
        return torch.rand(slices.valid.shape).masked_fill(~slices.valid, -1)


@dataclass(frozen=True)
class GivesFloat32(LargestNormPruner):
    def merge(self, slices, primary):
        pruned = super().merge(slices, primary)
        return replace(pruned, tokens=pruned.tokens.float())


@dataclass(eq=False)
class NotFrozen:
    signals = frozenset()


class NoDataclass(NucleusPruner):
    pass


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        (KeepsPadding(), "padding must never be kept"),
        (LeavesASliceEmpty(), "at least one token of every slice must be kept"),
        (LooksAtTheOtherSlices(), "without the other slices"),
        (MergesIntoDropped(), "merged_into must name the token itself where it is kept"),
        (ChangesTokens(), "tokens must not be changed in place"),
        (DrawsAnew(), "the same slices must give the same result"),
        (GivesFloat32(), "must stay so, got torch.float32"),
        (NotFrozen(), "must be a frozen dataclass"),
        (NoDataclass(), "must be a dataclass whose fields rebuild it"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_wrong_pruner_is_found(pruner: TokenPruner, message):
    with pytest.raises(AssertionError, match=message):
        check_pruner(pruner)
