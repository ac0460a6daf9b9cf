# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The recorded distance of every slice to its anchor, and the source volume's own geometry."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose

from monai_medpruner.transforms import (
    InterSliceAnchorFilter,
    InterSliceAnchorFilterd,
    SliceLimit,
    SliceRange,
    SliceRanged,
)

AFFINE = torch.tensor([[0.8, 0, 0, -40], [0, 0.9, 0, 12], [0, 0, 2.5, 100], [0, 0, 0, 1]], dtype=torch.float64)
LEVELS = [0, 1, 1, 1, 2, 2, 3, 3, 3, 3]  # kept at γ = 0.5: 0, 1, 4, 6
DISTANCES = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def volume(levels: list[int] = LEVELS, **meta) -> MetaTensor:
    values = torch.tensor(levels, dtype=torch.float32).expand(1, 5, 6, len(levels)).contiguous()
    return MetaTensor(values, affine=AFFINE.clone(), meta=meta)


def exact_distances(slices: np.ndarray, kept: list[int]) -> list[float]:
    """Distance of each slice to the last kept one before it, in float64."""
    anchors = [max([0, *(index for index in kept if index < slice_)]) for slice_ in range(len(slices))]
    return [float(np.abs(slices[index] - slices[anchor]).mean()) for index, anchor in enumerate(anchors)]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40), st.integers(1, 20)),
    axis=st.integers(1, 3),
    layout=st.permutations(range(4)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int16, torch.uint8]),
    share=st.floats(0.0, 3.0),
    guard=st.booleans(),
)
def test_against_a_float64_loop(seed, shape, axis, layout, dtype, share, guard):
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.standard_normal(shape) * rng.lognormal(size=shape), axis=axis)
    image = torch.as_tensor((20 * drift).clip(0 if dtype == torch.uint8 else -3000, 250)).to(dtype)
    image = image.permute(layout).contiguous().permute(np.argsort(layout).tolist())
    slices = np.moveaxis(image.double().numpy(), axis, 0)
    gamma = share * (float(np.abs(np.diff(slices, axis=0)).mean()) if len(slices) > 1 else 1.0)
    transform = InterSliceAnchorFilter(gamma, axis - 1, guard_mm=3.0 if guard else None, guard_threshold=20.0)
    meta = transform(MetaTensor(image)).meta
    kept, distances = meta["kept_indices"], meta["slice_distances"]
    in_float64 = guard or dtype == torch.float64
    assert distances == pytest.approx(exact_distances(slices, kept), rel=1e-12 if in_float64 else 1e-6, abs=0)
    beyond = [index for index, distance in enumerate(distances) if index == 0 or distance > gamma]
    assert set(beyond) <= set(kept) if guard else beyond == kept


@pytest.mark.parametrize("gamma", [0.3, 1 / 3, 0.9])
def test_of_slices_about_as_far_apart_as_gamma(gamma):
    image = torch.rand(1, 96, 96, 60, generator=torch.Generator().manual_seed(0))  # slices differ by 1/3 on average
    meta = InterSliceAnchorFilter(gamma)(image).meta
    expected = exact_distances(image.double().movedim(-1, 0).numpy(), meta["kept_indices"])
    assert meta["slice_distances"] == pytest.approx(expected, rel=1e-6)
    beyond = [index for index, distance in enumerate(meta["slice_distances"]) if distance > gamma]
    assert [0, *beyond] == meta["kept_indices"]


def test_source_numbering_after_a_range():
    out = Compose([SliceRange("2:8"), InterSliceAnchorFilter(0.5), SliceLimit(2)])(volume())
    distances = out.meta["slice_distances"]
    assert len(distances) == out.meta["source_depth"] == 10
    assert [index for index, value in enumerate(distances) if isnan(value)] == [0, 1, 8, 9]
    assert distances[2:8] == [0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert out.meta["kept_indices"] == [2, 6]


def test_source_geometry_after_several_selections():
    positions = [float(index**2) for index in range(10)]
    image = volume(slice_positions_mm=positions)
    pipeline = Compose([SliceRange("1:9"), InterSliceAnchorFilter(0.5), SliceLimit(2)])
    out = pipeline(image)
    assert out.meta["source_affine"] == AFFINE.tolist()
    assert out.meta["source_positions_mm"] == positions
    assert out.meta["slice_positions_mm"] == [1.0, 36.0]
    assert not torch.equal(out.affine, AFFINE)
    without = SliceRange("1:9")(volume())
    assert without.meta["source_positions_mm"] == pytest.approx([100 + 2.5 * index for index in range(10)])
    restored = pipeline.inverse(out)
    assert restored.meta.keys() - {"notes"} == image.meta.keys()  # notes of what was done stay


def test_inverse_leaves_what_the_selection_before_recorded():
    first = SliceRange("1:9")(volume())
    transform = InterSliceAnchorFilter(0.5)
    restored = transform.inverse(transform(first))
    assert restored.meta.keys() == first.meta.keys()
    assert restored.meta["source_affine"] == first.meta["source_affine"]


def test_without_a_threshold_nothing_is_recorded():
    assert "slice_distances" not in InterSliceAnchorFilter(None)(volume()).meta
    assert "slice_distances" not in SliceRange("2:8")(volume()).meta


def test_dictionary_form_records_them_where_they_were_measured():
    label = MetaTensor(torch.ones(1, 5, 6, 10))
    out = InterSliceAnchorFilterd(["label", "image"], 0.5, ref_key="image")({"image": volume(), "label": label})
    assert out["image"].meta["slice_distances"] == DISTANCES
    assert "slice_distances" not in out["label"].meta
    assert out["label"].meta["source_depth"] == 10


def test_volumes_of_unequal_depth_form_a_batch():
    pipeline = Compose([SliceRanged("image", "0:4"), InterSliceAnchorFilterd("image", 0.5)])
    items = [pipeline({"image": volume(levels)}) for levels in ([0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1])]
    separate = decollate_batch(list_data_collate(items))
    for item, before in zip(separate, items, strict=True):
        for key in ("slice_distances", "source_affine", "source_positions_mm", "kept_indices"):
            np.testing.assert_array_equal(item["image"].meta[key], before["image"].meta[key])
