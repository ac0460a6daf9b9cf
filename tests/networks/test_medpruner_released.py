# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The released code's order behind every model family: all slices are encoded, the record says which were dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SIZES
from monai.data import MetaTensor
from stock_oracle import masked_logits

from monai_medpruner.networks import Checkpoint, PrunedVLM, TransformersEncoder
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.pruners import MedPrunerReleasedPruner, NucleusPruner, TokenBudget
from monai_medpruner.results import StudyRecord

RELEASED = MedPrunerReleasedPruner(tau=0.5, temperature=0.5)
LEVELS = [0.0, 0.004, 0.008, 0.4, 0.408, 0.4, 0.9]  # of the slices: two steps that count
DROPPED = (1, 2, 4, 5)


def volume() -> MetaTensor:
    voxels = torch.stack([torch.full((1, 64, 96), level) for level in LEVELS], -1)
    affine = torch.diag(torch.tensor([1.0, 1, 5, 1], dtype=torch.float64))
    return MetaTensor(voxels, affine=affine, meta={"slice_positions_mm": [5.0 * place for place in range(7)]})


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return Checkpoint(str(checkpoint))


def test_masked_stock_model(model, prompts):
    """Slices of several sizes and of one: the pruned prompt gives the logits of the stock model on the full one."""
    inputs = prompts([SIZES[0]] * 2 + [SIZES[1]] * 2)
    records: list = []
    pruner = replace(RELEASED, threshold=10.0, contextual_ratio=0.0)
    with torch.no_grad():
        output = PrunedVLM(model, pruner)(**inputs, on_record=records.append)
    (record,) = records
    fixed = record.slices[0][0].grid == record.slices[0][2].grid  # some encoders make all slices one size
    assert [one.dropped for one in record.slices[0]] == [False, True, fixed, True]
    assert [int(one.keep.sum()) for one in record.slices[0]][1::2] == [1, 1]
    expected = masked_logits(model, inputs, record.keep)[record.keep]
    torch.testing.assert_close(output.logits[0], expected, atol=5e-5, rtol=1e-3)


def test_batches_of_the_encoder_change_nothing(model, prompts):
    inputs = prompts(SIZES)
    vlm = PrunedVLM(model, RELEASED)
    whole = vlm.encode(**inputs)
    for size in (1, 3):
        parts = vlm.encode(size, **inputs)
        assert [one.dropped for one in parts.records] == [one.dropped for one in whole.records]
        assert all(map(torch.equal, parts.keep, whole.keep))


def test_record(loaded, tmp_path):
    """All slices are encoded; the record, its file and the line name those of which one token is left."""
    study = TransformersEncoder(loaded, RELEASED).encode(volume())
    record = StudyRecord.load(study.record.save(tmp_path / "a.safetensors"))
    for one in (study.record, record):
        assert one.slice_indices == tuple(range(7))
        assert one.dropped_slices == DROPPED
        assert [one.kept_tokens[place] for place in DROPPED] == [1] * 4
    assert [len(tokens) for tokens in study.tokens] == record.kept_tokens
    summary = record.summary()
    assert summary["slices"]["kept"] == 7
    assert summary["slices"]["dropped_after_encoding"] == list(DROPPED)
    assert summary["slices"]["largest_gap_mm"] == 15
    assert "4 of the 7 encoded slices were dropped behind the encoder: one token of each is left." in summary["notes"]
    assert record.settings["pruner"]["name"] == "medpruner_released"
    assert record.settings["pruner"]["threshold"] == 0.05


def test_the_filter_is_that_of_the_pixels_that_the_encoder_gets(loaded):
    """An own walk over the stock image processor's output."""
    encoder = TransformersEncoder(loaded, RELEASED, image_processing="stock")
    pixels = [
        np.asarray(loaded.image_processor(images=[one], return_tensors="np")["pixel_values"], dtype=np.float64)
        for one in slice_images(volume())
    ]
    anchor, dropped = 0, []
    for place in range(1, 7):
        if np.abs(pixels[place] - pixels[anchor]).mean() > 0.05:
            anchor = place
        else:
            dropped.append(place)
    assert encoder.encode(volume()).record.dropped_slices == tuple(dropped)


def test_kept_slices_are_those_of_the_nucleus(loaded):
    alone = TransformersEncoder(loaded, NucleusPruner(tau=0.5, temperature=0.5)).encode(volume())
    study = TransformersEncoder(loaded, RELEASED).encode(volume())
    for place, (one, other) in enumerate(zip(study.tokens, alone.tokens, strict=True)):
        assert place in DROPPED or torch.equal(one, other)


def test_budget(loaded):
    free = TransformersEncoder(loaded, RELEASED)
    limit = free.unpruned_tokens(64, 96) * 7 // 2
    budget = TokenBudget(max_visual_tokens=limit, share_slices=False)
    record = TransformersEncoder(loaded, replace(RELEASED, tau=1.0), budget=budget).encode(volume()).record
    assert sum(record.kept_tokens) <= limit
    assert record.dropped_slices == DROPPED
