# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slice ranges and the anchor filter as MONAI transforms: metadata, inverse, labels, batches, pickling."""

from __future__ import annotations

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from monai.data import (
    DataLoader,
    Dataset,
    MetaTensor,
    decollate_batch,
    list_data_collate,
    pad_list_data_collate,
    set_track_meta,
)
from monai.transforms import Compose, Flip, PadListDataCollate
from monai.utils import TraceKeys

from monai_medpruner.errors import SettingsError, SliceGeometryError, VolumeShapeError
from monai_medpruner.transforms import InterSliceAnchorFilter, InterSliceAnchorFilterd, SliceRange, SliceRanged

# oblique: the slice direction leans, spacing 0.8, 0.9, 2.5 mm
AFFINE = torch.tensor(
    [[0.8, 0.0, 0.3, -40.0], [0.0, 0.9, 0.4, 12.0], [0.0, 0.0, 2.449489742783178, 100.0], [0.0, 0.0, 0.0, 1.0]],
    dtype=torch.float64,
)
# distances between neighbors are 1 where a new slice begins, else 0
EVEN = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # kept: 0, 2, 4, 6, 8
UNEVEN = [0, 1, 1, 1, 2, 2, 3, 3, 3, 3]  # kept: 0, 1, 4, 6


def volume(levels: list[int], axis: int = -1, **meta) -> MetaTensor:
    """A volume with one value a slice plus a fixed texture."""
    texture = torch.rand(1, 5, 6, 1, generator=torch.Generator().manual_seed(0))
    image = (texture + torch.tensor(levels, dtype=torch.float32)).movedim(-1, axis)
    pixdim = np.array([1.0, 0.8, 0.9, 2.5, 0.0, 0.0, 0.0, 0.0], dtype=np.float32)
    return MetaTensor(image, affine=AFFINE.clone(), meta={"pixdim": pixdim, "notes": ["read"], **meta})


def world(affine: torch.Tensor, index: int, axis: int = 2) -> torch.Tensor:
    voxel = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    voxel[axis] = index
    return (affine @ voxel)[:3]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_even_selection_keeps_every_slice_in_its_place(axis):
    image = volume(EVEN, axis + 1)
    out = InterSliceAnchorFilter(0.5, axis)(image)
    kept = [0, 2, 4, 6, 8]
    torch.testing.assert_close(out.as_tensor(), image.as_tensor().index_select(axis + 1, torch.tensor(kept)))
    for position, index in enumerate(kept):
        torch.testing.assert_close(world(out.affine, position, axis), world(AFFINE, index, axis))
    assert out.meta["kept_indices"] == kept
    assert out.meta["source_depth"] == 10
    assert out.meta["nonuniform"] is False
    assert out.meta["pixdim"][1:4].tolist() == pytest.approx(
        [s * (2 if axis == i else 1) for i, s in enumerate((0.8, 0.9, 2.5))]
    )
    steps = np.diff(out.meta["slice_positions_mm"])
    assert steps.tolist() == pytest.approx([2 * (0.8, 0.9, 2.5)[axis]] * 4)


def test_uneven_selection_moves_the_origin_only_and_says_so():
    out = SliceRange("1:9")(volume(UNEVEN))
    out = InterSliceAnchorFilter(0.5)(out)
    assert out.meta["kept_indices"] == [1, 4, 6]  # numbering of the source volume
    assert out.meta["source_depth"] == 10
    assert out.meta["nonuniform"] is True
    torch.testing.assert_close(out.affine[:3, 3], world(AFFINE, 1))
    torch.testing.assert_close(out.affine[:3, :3], AFFINE[:3, :3])
    start = float(AFFINE[:3, 3] @ AFFINE[:3, 2]) / 2.5
    assert out.meta["slice_positions_mm"] == pytest.approx([start + 2.5 * index for index in (1, 4, 6)])


def test_single_kept_slice_is_uniform_and_keeps_the_spacing():
    out = SliceRange("7:8")(volume(EVEN))
    assert out.shape == (1, 5, 6, 1)
    assert out.meta["nonuniform"] is False
    torch.testing.assert_close(out.affine[:3, 2], AFFINE[:3, 2])
    torch.testing.assert_close(out.affine[:3, 3], world(AFFINE, 7))


def test_positions_of_the_reader_are_kept_and_uneven_gaps_stay_known():
    positions = [0.0, 1.5, 3.0, 9.0, 10.5, 12.0, 13.0, 20.0, 21.0, 22.5]
    out = InterSliceAnchorFilter(0.5)(volume(EVEN, slice_positions_mm=positions, nonuniform=True))
    assert out.meta["slice_positions_mm"] == [0.0, 3.0, 10.5, 13.0, 21.0]
    assert out.meta["nonuniform"] is True


@pytest.mark.parametrize("transform", [InterSliceAnchorFilter(0.5), SliceRange("2:7")])
@pytest.mark.parametrize("levels", [EVEN, UNEVEN])
def test_input_is_left_alone(transform, levels):
    image = volume(levels, slice_positions_mm=[float(i) for i in range(10)])
    values, meta = image.as_tensor().clone(), deepcopy(image.meta)
    out = transform(image)
    out.meta["notes"].append("changed later")
    transform.inverse(out)
    assert torch.equal(image.as_tensor(), values)
    assert image.applied_operations == []
    assert image.meta.keys() == meta.keys()
    for key, value in meta.items():
        np.testing.assert_array_equal(image.meta[key], value, err_msg=key)


@pytest.mark.parametrize(
    ("transform", "filled"),
    [
        (InterSliceAnchorFilter(0.5), [0, 1, 1, 1, 4, 4, 6, 6, 6, 6]),
        (SliceRange("2:7"), [None, None, 2, 3, 4, 5, 6, None, None, None]),
        (SliceRange(), list(range(10))),
    ],
)
@pytest.mark.parametrize("axis", [0, 2])
def test_inverse_gives_the_full_depth_and_the_metadata_of_before_back(transform, filled, axis):
    transform = deepcopy(transform)
    transform.spatial_dim = axis
    image = volume(UNEVEN, axis + 1, slice_positions_mm=[float(i) for i in range(10)])
    kept = transform(image)
    restored = transform.inverse(kept)
    slices = image.as_tensor().unbind(axis + 1)
    expected = [torch.zeros_like(slices[0]) if index is None else slices[index] for index in filled]
    torch.testing.assert_close(restored.as_tensor(), torch.stack(expected, dim=axis + 1))
    torch.testing.assert_close(restored.affine, AFFINE)
    assert restored.applied_operations == []
    assert restored.meta.keys() == image.meta.keys()
    assert restored.meta["slice_positions_mm"] == image.meta["slice_positions_mm"]
    np.testing.assert_array_equal(restored.meta["pixdim"], image.meta["pixdim"])


def test_inverse_serves_predictions_of_other_channel_number_and_type():
    transform = InterSliceAnchorFilter(0.5)
    kept = transform(volume(UNEVEN))
    prediction = MetaTensor(torch.ones(3, 5, 6, 4, dtype=torch.uint8)).copy_meta_from(kept)
    restored = transform.inverse(prediction)
    assert restored.shape == (3, 5, 6, 10)
    assert restored.dtype == torch.uint8


def test_inverse_refuses_another_depth():
    transform = InterSliceAnchorFilter(0.5)
    kept = transform(volume(UNEVEN))
    with pytest.raises(VolumeShapeError, match="4 slices were kept, the volume has 3"):
        transform.inverse(kept[..., :3])


def test_two_selections_invert_one_after_the_other():
    image = volume(UNEVEN)
    pipeline = Compose([SliceRange("1:9"), InterSliceAnchorFilter(0.5)])
    restored = pipeline.inverse(pipeline(image))
    expected = image.as_tensor()[..., [1, 1, 1, 1, 4, 4, 6, 6, 6, 6]].clone()
    expected[..., [0, 9]] = 0
    torch.testing.assert_close(restored.as_tensor(), expected)
    assert "kept_indices" not in restored.meta


def test_stale_slice_metadata_is_refused():
    kept = InterSliceAnchorFilter(0.5)(volume(UNEVEN))
    with pytest.raises(SliceGeometryError, match=r"describes 4 slices, the volume has 2"):
        SliceRange("0:1")(kept[..., :2])


@pytest.mark.parametrize("convert", [lambda v: v.as_tensor(), lambda v: v.as_tensor().numpy(), lambda v: v])
@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8, torch.bool, torch.float64])
def test_containers_and_dtypes(convert, dtype):
    image = volume(EVEN).as_tensor()
    image = image > 1 if dtype == torch.bool else image.to(dtype)
    out = InterSliceAnchorFilter(0.5)(convert(MetaTensor(image)))
    kept = [0, 2] if dtype == torch.bool else [0, 2, 4, 6, 8]
    assert isinstance(out, MetaTensor)
    assert out.dtype == dtype
    assert torch.equal(out.as_tensor(), image[..., kept])
    assert out.meta["kept_indices"] == kept


def test_gradient_reaches_the_kept_slices_only():
    image = volume(UNEVEN).as_tensor().requires_grad_()
    InterSliceAnchorFilter(0.5)(image).sum().backward()
    assert image.grad.sum(dim=(0, 1, 2)).tolist() == [30, 30, 0, 0, 30, 0, 30, 0, 0, 0]


@pytest.fixture
def _untracked():
    set_track_meta(False)
    yield
    set_track_meta(True)


@pytest.mark.usefixtures("_untracked")
@pytest.mark.parametrize("transform", [InterSliceAnchorFilter(0.5), SliceRange("2:7")])
def test_without_metadata_tracking(transform):
    image = volume(UNEVEN)
    out = transform(image)
    assert not isinstance(out, MetaTensor)
    assert torch.equal(out, image.as_tensor()[..., transform.kept_slices(image)])


def test_lazy_compose_applies_pending_operations_first():
    image = volume(UNEVEN)
    out = Compose([Flip(2), InterSliceAnchorFilter(0.5)], lazy=True)(image)
    flipped = image.as_tensor().flip(-1)
    assert out.meta["kept_indices"] == [0, 4, 6, 9]
    torch.testing.assert_close(out.as_tensor(), flipped[..., [0, 4, 6, 9]])
    torch.testing.assert_close(out.affine[:3, 3], world(AFFINE, 9))
    assert out.pending_operations == []


@pytest.mark.parametrize(
    "transform", [InterSliceAnchorFilterd(["image"], 0.5), SliceRanged(["image"], "2:7")], ids=["filter", "range"]
)
def test_pickling(transform):
    image = volume(UNEVEN)
    expected = transform({"image": image})["image"]
    out = pickle.loads(pickle.dumps(transform))({"image": pickle.loads(pickle.dumps(image))})["image"]
    assert torch.equal(out.as_tensor(), expected.as_tensor())
    unpickled = pickle.loads(pickle.dumps(out))
    assert unpickled.meta["kept_indices"] == expected.meta["kept_indices"]
    assert unpickled.applied_operations[-1][TraceKeys.CLASS_NAME] == type(transform.array_form).__name__


def test_labels_keep_the_slices_of_the_image_and_come_back():
    label = MetaTensor(torch.arange(10, dtype=torch.uint8).expand(2, 5, 6, 10).clone(), affine=AFFINE.clone())
    transform = InterSliceAnchorFilterd(["label", "image", "absent"], 0.5, ref_key="image", allow_missing_keys=True)
    out = transform({"label": label, "image": volume(UNEVEN), "other": 1})
    assert out["label"][0, 0, 0].tolist() == [0, 1, 4, 6]
    assert out["label"].meta["kept_indices"] == out["image"].meta["kept_indices"] == [0, 1, 4, 6]
    torch.testing.assert_close(out["label"].affine, out["image"].affine)
    assert out["other"] == 1
    restored = transform.inverse(out)
    assert restored["label"][1, 2, 3].tolist() == [0, 1, 1, 1, 4, 4, 6, 6, 6, 6]
    assert restored["image"].shape == (1, 5, 6, 10)


def test_first_key_is_the_reference_by_default():
    out = InterSliceAnchorFilterd(["a", "b"], 0.5)({"a": volume(EVEN), "b": volume(UNEVEN)})
    assert out["b"].meta["kept_indices"] == [0, 2, 4, 6, 8]


def test_dictionary_errors():
    with pytest.raises(SettingsError, match="ref_key"):
        InterSliceAnchorFilterd(["image"], 0.5, ref_key="label")
    with pytest.raises(KeyError, match="label"):
        InterSliceAnchorFilterd(["image", "label"], 0.5)({"image": volume(EVEN)})
    transform = InterSliceAnchorFilterd(["image", "label"], 0.5, allow_missing_keys=True)
    with pytest.raises(KeyError, match="reference key 'image'"):
        transform({"label": volume(EVEN)})
    assert transform({"other": 1}) == {"other": 1}
    with pytest.raises(VolumeShapeError, match="'label' has 9 slices, the reference 'image' has 10"):
        transform({"image": volume(EVEN), "label": torch.zeros(1, 5, 6, 9)})


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batch_of_unequal_depth_is_padded_decollated_and_inverted(num_workers):
    transform = InterSliceAnchorFilterd(["image"], 0.5)
    images = [volume(EVEN, notes=["read", "tilted"]), volume(UNEVEN)]
    # applied here, so that the inverse below is that of the same object
    items = [transform({"image": image}) for image in images]
    loader = DataLoader(Dataset(items), batch_size=2, collate_fn=pad_list_data_collate, num_workers=num_workers)
    (batch,) = list(loader)
    assert batch["image"].shape == (2, 1, 5, 6, 5)
    separate = decollate_batch(batch)
    assert [list(item["image"].meta["kept_indices"]) for item in separate] == [[0, 2, 4, 6, 8], [0, 1, 4, 6]]
    assert [item["image"].meta["notes"] for item in separate] == [["read", "tilted"], ["read"]]
    assert [item["image"].meta["nonuniform"] for item in separate] == [False, True]
    for item, image in zip(separate, images, strict=True):
        restored = transform.inverse(PadListDataCollate.inverse(item))["image"]
        assert restored.shape == image.shape
        torch.testing.assert_close(restored.affine, AFFINE)


def test_batch_of_equal_depth_keeps_its_lists_whole():
    items = [SliceRange(text)(volume(EVEN)) for text in ("2:7", "5:10")]
    separate = decollate_batch(list_data_collate(items))
    assert [item.meta["kept_indices"] for item in separate] == [[2, 3, 4, 5, 6], [5, 6, 7, 8, 9]]
    assert [item.meta["slice_positions_mm"] for item in separate] == [item.meta["slice_positions_mm"] for item in items]
