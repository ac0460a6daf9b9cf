# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""16-bit runs select the tokens that float32 selects, except at near-ties.

A 16-bit encoder gives importances that differ from float32's by at most its rounding, stated below and checked. Within
that, tokens of about equal importance may change places, and the cumulative mass before a token may shift a little. A
token is at a near-tie where float32's cumulative mass before it can then come to lie on either side of τ.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch

from monai_medpruner.networks import PrunedVLM
from monai_medpruner.pruners import NucleusPruner

PRUNER = NucleusPruner(tau=0.6, temperature=2, contextual_ratio=0)
# largest difference of an importance (mean 1) from float32's: a few units of a mantissa of 10 and of 7 bits
ROUNDING = {torch.float16: 0.006, torch.bfloat16: 0.04}
# slices of two sizes, 24 of them: a few hundred tokens
SLICES = [(96, 128), (128, 128)] * 12


@pytest.fixture
def sharp_model(model):
    """A model whose scoring layer attends to few patches: importances from 0.1 to 2."""
    with torch.no_grad():
        for weight in PrunedVLM(model).family.scoring_attention.parameters():
            weight.mul_(3)
    return model


def records_in(model, inputs, dtype):
    return PrunedVLM(copy.deepcopy(model).to(dtype), PRUNER).encode(**inputs).records


def mass_before(importance, lead):
    """Return, for each token, the total mass of tokens of its slice whose importance is larger by some margin."""
    mass = torch.softmax(importance.double() / PRUNER.temperature, -1)
    ahead = importance - importance[:, None] > lead
    return (mass * (ahead & ~torch.eye(len(importance), dtype=torch.bool))).sum(-1)


def near_ties(importance, rounding):
    """Return the mask of the tokens of a slice whose selection may differ between two runs."""
    # two importances may each change by rounding, every mass by a factor
    tolerance = math.expm1(2 * rounding / PRUNER.temperature)
    surely, perhaps = mass_before(importance, 2 * rounding), mass_before(importance, -2 * rounding)
    return (surely - tolerance < PRUNER.tau) & (PRUNER.tau <= perhaps + tolerance)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_16_bit_models_select_the_tokens_of_float32(sharp_model, prompts, dtype):
    inputs = prompts(SLICES)
    exact = records_in(sharp_model, inputs, torch.float32)
    ties, different, kept = [], [], []
    for one, rounded in zip(exact, records_in(sharp_model, inputs, dtype), strict=True):
        torch.testing.assert_close(rounded.importance, one.importance, atol=ROUNDING[dtype], rtol=0)
        for run in (one, rounded):
            # scores and later steps are not in 16 bits
            assert run.importance.dtype == torch.float32
            assert run.importance.mean().item() == pytest.approx(1, abs=1e-5)
            assert torch.equal(run.primary, mass_before(run.importance, 0) < PRUNER.tau)
        ties.append(near_ties(one.importance, ROUNDING[dtype]))
        different.append(rounded.primary != one.primary)
        kept.append(one.primary)
    ties, different, kept = (torch.cat(parts) for parts in (ties, different, kept))
    assert not (different & ~ties).any()
    # otherwise the test would check nothing
    assert ties.float().mean() < 0.5
    assert 0.2 < kept.float().mean() < 0.8
