# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A cropped volume through the encoder: fewer tokens, measured against whole slices."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.engines import VolumeQA
from monai_medpruner.networks import TransformersEncoder
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.results import StudyRecord
from monai_medpruner.transforms import CropBody, DownsampleSlices, FindBody, HUWindows, SliceRange

SHRINK = DownsampleSlices(0.25)


@pytest.fixture(scope="module")
def network(checkpoint):
    return VolumeQA.from_pretrained(str(checkpoint), NucleusPruner(tau=0.5, temperature=0.5), max_new_tokens=3)


@pytest.fixture(scope="module")
def volume():
    voxels = torch.full((1, 128, 192, 6), -1000.0)
    voxels[0, 32:92, 40:100] = torch.rand(60, 60, 6, generator=torch.Generator().manual_seed(3)) * 200 - 50
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([2.0, 2, 4, 1], dtype=torch.float64)))


def whole_and_cropped(volume, **options):
    whole = HUWindows()(volume)
    found = HUWindows()(FindBody()(volume))
    return SliceRange("1:5")(whole), CropBody(**options)(SliceRange("1:5")(found))


def test_the_denominator_is_that_of_whole_slices(network, volume, tmp_path):
    whole, cropped = whole_and_cropped(volume)
    before, after = (network.encode(one).record for one in (whole, cropped))
    tokens = before.slices[0].keep.numel()
    assert before.unpruned_tokens_per_slice is None
    assert after.unpruned_tokens_per_slice == tokens
    assert after.unpruned_tokens == before.unpruned_tokens == 4 * tokens  # of the chosen range
    assert after.retention["overall"] == sum(after.kept_tokens) / before.unpruned_tokens
    assert after.retention["slices"] == before.retention["slices"]
    again = StudyRecord.load(after.save(tmp_path / "a.safetensors"))
    assert again.unpruned_tokens_per_slice == tokens
    assert again.geometry.crop == tuple(map(tuple, cropped.meta["crop"]))


def test_geometry_is_that_of_the_whole_volume(network, volume):
    whole, cropped = whole_and_cropped(volume, margin_mm=0)
    before, after = (network.encode(one).record.geometry for one in (whole, cropped))
    assert after.crop == ((32, 92), (40, 100))
    assert before.crop is None
    assert after.shape == before.shape == (128, 192, 6)
    assert torch.equal(after.affine, before.affine)
    assert torch.equal(after.original_affine, before.original_affine)
    assert after.slice_positions_mm == before.slice_positions_mm


def test_a_crop_without_any_selection(network, volume):
    cropped = CropBody(margin_mm=0)(HUWindows()(FindBody()(volume)))
    record = network.encode(cropped).record
    assert record.slice_indices == tuple(range(6))
    assert record.total_slices == 6
    assert torch.equal(record.geometry.affine, volume.affine)


def test_tokens_are_those_of_the_cropped_slices_alone(network, volume):
    """No trace of what was cut away."""
    _, cropped = whole_and_cropped(volume)
    alone = MetaTensor(cropped.as_tensor().clone())
    one, other = network.encode(cropped), network.encode(alone)
    for a, b in zip(one.tokens, other.tokens, strict=True):
        assert torch.equal(a, b)
    assert one.grids == other.grids
    (answered,) = network(cropped[None], [["Is it?"]])
    assert answered.record.geometry.crop is not None


def test_fewer_tokens_where_the_number_follows_the_size(network, volume):
    whole, cropped = whole_and_cropped(volume)
    encoder: TransformersEncoder = network.encoder
    before, after = (encoder.encode_each(one, [None])[0] for one in (whole, cropped))
    if encoder.checkpoint.model.config.model_type in ("gemma3", "internvl"):
        assert after.grids == before.grids
    else:
        assert sum(after.record.kept_tokens) < 0.5 * sum(before.record.kept_tokens)
    assert after.key.preprocessing == before.key.preprocessing == "[]"
    assert after.key.volume != before.key.volume


def test_shrunk_slices_have_fewer_tokens_of_the_same_number(network, volume):
    """Half as high and wide: the record counts the tokens of whole slices, and what is left of these."""
    whole = SliceRange("1:5")(HUWindows()(volume))
    before, after = (TransformersEncoder(network.encoder.checkpoint).encode(one) for one in (whole, SHRINK(whole)))
    assert after.record.unpruned_tokens == before.record.unpruned_tokens
    assert after.record.geometry.shape == (128, 192, 6)
    assert torch.equal(after.record.geometry.affine, before.record.geometry.affine)
    fixed = before.grids[0][0] == before.grids[0][1]  # an encoder that makes every slice a square of one size
    assert (after.record.retention["overall"] < 0.7) == (not fixed)
