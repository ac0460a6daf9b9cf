# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Budgets of tokens at the encoder: never exceeded, and the record says what they are a share of."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_medpruner.engines import TransformersEngine, VolumeQA
from monai_medpruner.errors import BudgetError
from monai_medpruner.evaluation.variants import Variant, encode_variants
from monai_medpruner.networks import Checkpoint, ModelFamily, TransformersEncoder
from monai_medpruner.pruners import (
    AveragePoolingPruner,
    NucleusPruner,
    QuestionEmbedding,
    RandomTokensPruner,
    TokenBudget,
)
from monai_medpruner.results import StudyRecord
from monai_medpruner.transforms import SliceLimit, SliceRange

FULL = NucleusPruner(tau=1.0)
PRUNERS = [FULL, NucleusPruner(tau=0.5, temperature=0.5), RandomTokensPruner(), AveragePoolingPruner(), None]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return Checkpoint(str(checkpoint))


def volume(depth=12, rows=64, columns=96, seed=0, **meta):
    voxels = torch.rand(1, rows, columns, depth, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(voxels, meta=meta)


def kept(study):
    return sum(len(tokens) for tokens in study.tokens)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    depth=st.integers(1, 9),
    rows=st.sampled_from([64, 96]),
    pruner=st.sampled_from(PRUNERS),
    budget=st.builds(
        TokenBudget,
        st.one_of(st.none(), st.floats(0.02, 1)),
        st.one_of(st.none(), st.integers(1, 80)),
        st.one_of(st.none(), st.floats(0.1, 1)),
        st.booleans(),
    ),
)
def test_never_exceeded(loaded, depth, rows, pruner, budget):
    """Refused, or met in tokens, in the reported share and in slices."""
    whole = volume(depth, rows)
    free = TransformersEncoder(loaded, pruner).encode(whole)
    encoder = TransformersEncoder(loaded, pruner, budget=budget)
    total = depth * encoder.unpruned_tokens(rows, 96)
    assert free.record.unpruned_tokens == total
    limit = budget.tokens(total)
    size = total // depth
    if limit is None:
        assert torch.equal(torch.cat(encoder.encode(whole).tokens), torch.cat(free.tokens))
        return
    if limit < (size if pruner is None else pruner.least_tokens(size)):
        with pytest.raises(BudgetError, match=f"budget of {limit} visual tokens, of {total} that the {depth} slices"):
            encoder.encode(whole)
        return
    study = encoder.encode(whole)
    record = study.record
    assert kept(study) == sum(record.kept_tokens) <= limit
    assert record.unpruned_tokens == total
    assert record.retention["overall"] <= (budget.retention or 1)
    assert 1 <= len(record.slices) <= budget.slices(depth, total)
    assert (len(record.slices) < depth) == bool(record.notes)
    assert record.total_slices == depth


def test_without_a_budget_nothing_changes(loaded):
    plain = TransformersEncoder(loaded, FULL).encode(volume())
    for budget in (TokenBudget(), TokenBudget(slice_ratio=0.5), TokenBudget(1.0, share_slices=False)):
        study = TransformersEncoder(loaded, FULL, budget=budget).encode(volume())
        assert all(torch.equal(one, other) for one, other in zip(study.tokens, plain.tokens, strict=True))
        assert study.record.slice_indices == plain.record.slice_indices
        assert study.record.retention == plain.record.retention
        assert not study.record.notes
    assert plain.record.settings["budget"] is None
    assert plain.key.budget == "null"


def test_what_is_given_up_is_noted(loaded, tmp_path):
    """Slices that a rule chose before are not all kept, in the volume's own numbers."""
    selected = SliceLimit(9)(volume(30))
    encoder = TransformersEncoder(loaded, FULL, budget=TokenBudget(max_visual_tokens=8, share_slices=False))
    size = encoder.unpruned_tokens(64, 96)
    slices = 8 // FULL.least_tokens(size)
    record = encoder.encode(selected).record
    assert len(record.slice_indices) == slices
    assert set(record.slice_indices) < set(selected.meta["kept_indices"])
    assert record.notes[-1] == (
        f"9 slices were left, and the budget of 8 visual tokens (at least {FULL.least_tokens(size)} a slice) allows "
        f"{slices}: these were taken evenly spaced, whatever rule chose slices before."
    )
    assert record.settings["budget"]["max_visual_tokens"] == 8
    loaded_again = StudyRecord.load(record.save(tmp_path / "record.safetensors"))
    assert loaded_again.retention == record.retention
    assert loaded_again.unpruned_tokens_per_slice == size


def test_one_slice_is_the_middle_one(loaded):
    encoder = TransformersEncoder(loaded, FULL, budget=TokenBudget(0.4, slice_ratio=0.1))
    assert encoder.encode(volume(9)).record.slice_indices == (4,)


def test_shares_are_of_the_chosen_range(loaded, tmp_path):
    part = SliceRange("5:15")(volume(40))
    size = TransformersEncoder(loaded).unpruned_tokens(64, 96)
    budget = TokenBudget(0.5, share_slices=False)
    record = TransformersEncoder(loaded, FULL, budget=budget).encode(SliceLimit(4)(part)).record
    assert record.unpruned_tokens == 10 * size
    assert sum(record.kept_tokens) == min(4 * size, 5 * size)
    assert record.retention["slices"] == 0.4
    slices = record.summary()["slices"]
    assert slices.pop("largest_gap_mm") == record.largest_gap_mm
    assert slices == {"total": 40, "range": 10, "kept": 4, "indices": list(record.slice_indices)}
    assert StudyRecord.load(record.save(tmp_path / "record.safetensors")).retention == record.retention
    plain = TransformersEncoder(loaded, FULL).encode(volume(40)).record
    assert "range" not in plain.summary()["slices"]


def test_the_denominator_is_the_image_processors_own_size(loaded):
    """Shrunk slices are not what the share is of."""
    if type(loaded.family).image_size_for is ModelFamily.image_size_for:
        pytest.skip("images of a fixed size")
    wide = volume(4, 320, 320)
    encoder = TransformersEncoder(loaded, FULL, token_budget=4 * 16, budget=TokenBudget(0.05, share_slices=False))
    record = encoder.encode(wide).record
    assert record.unpruned_tokens == TransformersEncoder(loaded).encode(wide).record.unpruned_tokens
    assert record.slices[0].keep.numel() < record.unpruned_tokens_per_slice
    assert record.retention["overall"] <= 0.05


def test_keys_and_pruners_side_by_side(loaded):
    """Pruners that keep at least different numbers are given different slices, and each what it gets alone."""
    encoder = TransformersEncoder(loaded, None, budget=TokenBudget(max_visual_tokens=30))
    pruners = [FULL, None, AveragePoolingPruner(), NucleusPruner(tau=0.3)]
    together = encoder.encode_each(volume(), pruners)
    for pruner, study in zip(pruners, together, strict=True):
        alone = TransformersEncoder(loaded, pruner, budget=encoder.budget).encode(volume())
        assert study.key == alone.key != TransformersEncoder(loaded, pruner).encode(volume()).key
        assert study.record.slice_indices == alone.record.slice_indices
        assert all(torch.equal(one, other) for one, other in zip(study.tokens, alone.tokens, strict=True))


@dataclass(frozen=True)
class QuestionPruner(NucleusPruner):
    """Looks at the question as well."""

    @property
    def signals(self):
        return super().signals | {QuestionEmbedding()}


def test_a_pruner_that_needs_the_question(loaded):
    encoder = TransformersEncoder(loaded, QuestionPruner(tau=1.0), budget=TokenBudget(0.3))
    network = VolumeQA(encoder, TransformersEngine(loaded, max_new_tokens=3))
    study = network.encode(volume())
    asked = network.for_question(study, "Is there a nodule?")
    assert kept(asked) == TokenBudget(0.3).tokens(study.record.unpruned_tokens)
    assert asked.record.retention["overall"] <= 0.3


def test_variants_of_an_evaluation(loaded):
    """Each selection of slices has its own budget, and the study that is answered from has its own record."""
    encoder = TransformersEncoder(loaded, FULL, budget=TokenBudget(0.2, share_slices=False))
    network = VolumeQA(encoder, TransformersEngine(loaded))
    few = Variant("few", lambda d: {"image": SliceLimit(3)(d["image"])}, FULL)
    many = Variant("many", None, FULL)
    for variant, study in encode_variants(network, volume(), [few, many]):
        source = volume() if variant is many else SliceLimit(3)(volume())
        alone = encoder.encode(source)
        assert study.record.slice_indices == alone.record.slice_indices
        assert study.record.kept_tokens == alone.record.kept_tokens
        assert study.record.retention["overall"] <= 0.2
