# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Cropping to the body: what is found, what is cut, and that all of it can be undone."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch, set_track_meta
from monai.transforms import Compose

from monai_medpruner.data import collate_volumes
from monai_medpruner.errors import SettingsError, VolumeShapeError
from monai_medpruner.transforms import (
    CropBody,
    CropBodyd,
    FindBody,
    FindBodyd,
    HUWindows,
    IntensityWindowsd,
    InterSliceAnchorFilter,
    SlicePlane,
    SliceRange,
    SliceRanged,
)

SHAPE = (40, 50, 12)
BODY = (slice(8, 28), slice(12, 32), slice(2, 10))


def ct(affine=None, body=BODY, shape=SHAPE, **meta) -> MetaTensor:
    """A block of tissue in air and a table below it; 4 mm, axial in the radiologist's view."""
    voxels = torch.full((1, *shape), -1000.0)
    voxels[0][body] = torch.rand(voxels[0][body].shape, generator=torch.Generator().manual_seed(0)) * 100
    voxels[0, 32:34, :] = 200
    axes = np.array([[0, -4.0, 0, 90], [-4.0, 0, 0, 70], [0, 0, 4.0, -300], [0, 0, 0, 1]])
    return MetaTensor(voxels, affine=torch.as_tensor(axes if affine is None else affine), meta=meta)


def found_and_windowed(image):
    return HUWindows((("soft_tissue"),), assume_hu=True)(FindBody()(image))


def test_the_box_and_its_metadata():
    image = ct()
    out = CropBody(margin_mm=5)(found_and_windowed(image))
    assert out.meta["crop"] == [[6, 30], [10, 34]]
    assert out.meta["uncropped_size"] == [40, 50]
    expected = HUWindows(assume_hu=True)(image)[:, 6:30, 10:34]
    assert torch.equal(out.as_tensor(), expected.as_tensor())
    corner = image.affine @ torch.tensor([6.0, 10, 0, 1], dtype=torch.float64)
    assert torch.equal(out.affine[:, 3], corner)
    assert torch.equal(out.affine[:, :3], image.affine[:, :3])
    assert torch.equal(torch.tensor(out.meta["source_affine"], dtype=torch.float64), image.affine)
    assert out.meta["source_depth"] == 12
    assert out.meta["kept_indices"] == list(range(12))
    assert "body_extents" not in out.meta


def test_the_volume_given_is_left_alone():
    image = ct()
    before, meta = image.as_tensor().clone(), dict(image.meta)
    found = FindBody()(image)
    assert image.meta.keys() == meta.keys()
    seen = {key: str(value) for key, value in found.meta.items()}
    CropBody()(found)
    assert {key: str(value) for key, value in found.meta.items()} == seen
    assert torch.equal(image.as_tensor(), before)
    assert not found.applied_operations


def test_memory_is_shared_and_keeps_its_order():
    voxels = torch.full((1, 12, 40, 50), -1000.0)
    voxels[0, :, 8:28, 12:32] = 0
    found = FindBody()(MetaTensor(voxels.permute(0, 2, 3, 1), affine=ct().affine))
    out = CropBody()(found)
    assert out.stride() == found.stride()
    assert out.untyped_storage().data_ptr() == voxels.untyped_storage().data_ptr()


def test_the_box_is_that_of_the_kept_slices():
    """Of the whole volume the body is known, of the slices that were dropped none is paid for."""
    image = ct()
    image[0, 10:20, 30:46, 8:11] = 30  # wider in some slices
    found = FindBody()(image)
    wide = CropBody(margin_mm=0)(found)
    assert wide.meta["crop"][1][1] == 46
    narrow = CropBody(margin_mm=0)(SliceRange("3:8")(found))
    assert narrow.meta["crop"] == [[8, 28], [12, 32]]
    assert narrow.meta["kept_indices"] == [3, 4, 5, 6, 7]
    twice = CropBody(margin_mm=0)(InterSliceAnchorFilter(1e9)(SliceRange("3:8")(found)))
    assert twice.meta["kept_indices"] == [3]
    assert twice.meta["crop"] == narrow.meta["crop"]


def test_slices_without_body_stay_whole_alone_and_follow_in_company():
    found = FindBody()(ct())
    alone = CropBody()(SliceRange("0:2")(found))
    assert alone.shape == (1, 40, 50, 2)
    assert "crop" not in alone.meta
    assert CropBody(margin_mm=0)(SliceRange("0:4")(found)).shape == (1, 20, 20, 4)


def test_a_selection_after_the_crop_keeps_the_source():
    image = ct()
    cropped = CropBody()(FindBody()(image))
    out = SliceRange("4:7")(cropped)
    assert out.meta["kept_indices"] == [4, 5, 6]
    assert torch.equal(torch.tensor(out.meta["source_affine"], dtype=torch.float64), image.affine)


@pytest.mark.parametrize("margin", [0, 3.9, 4, 4.1, 1000])
def test_margin(margin):
    out = CropBody(margin_mm=margin)(FindBody()(ct()))
    voxels = {0: 0, 3.9: 1, 4: 1, 4.1: 2, 1000: 1000}[margin]
    if margin == 1000:
        assert "crop" not in out.meta
        assert out.shape[1:] == SHAPE
    else:
        assert out.meta["crop"] == [[8 - voxels, 28 + voxels], [12 - voxels, 32 + voxels]]


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(3, 40)] * 4), st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_square(sides, offsets):
    height, width = sides[0] + 4, sides[1] + 4
    rows, columns = min(sides[2], height), min(sides[3], width)
    top, left = offsets[0] % (height - rows + 1), offsets[1] % (width - columns + 1)
    image = MetaTensor(torch.zeros(1, height, width, 2))
    image.meta["body_extents"] = [[top, top + rows, left, left + columns]] * 2
    image.meta["body_grid"] = [height, width, *image.affine[:3, :2].flatten().tolist()]
    start, end = CropBody(margin_mm=0, square=True).compute_bounding_box(image)
    size = end - start
    side = max(rows, columns)
    assert size.tolist() == [min(side, height), min(side, width), 2]
    assert (start >= 0).all()
    assert (end <= (height, width, 2)).all()
    # all of the body, in the middle where the slice allows it
    assert start[0] <= top < top + rows <= end[0]
    assert start[1] <= left < left + columns <= end[1]
    for axis, (low, high, most) in enumerate([(top, top + rows, height), (left, left + columns, width)]):
        if 0 < start[axis] and end[axis] < most:
            assert abs((start[axis] + end[axis]) - (low + high)) <= 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_voxel_keeps_its_place(order, signs, plane):
    """Views of oblique volumes: after the crop, the affine still gives every voxel its own world position."""
    voxels = torch.full(SHAPE, -1000.0)
    voxels[BODY] = torch.arange(voxels[BODY].numel()).reshape(voxels[BODY].shape).float()
    turned = voxels.permute(order).flip([axis for axis, sign in enumerate(signs) if sign < 0]).contiguous()
    rotation = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.eye(3)[:, list(order)] * np.array(signs) * 4.0
    affine[:3, 3] = 7, -8, 9
    image = MetaTensor(turned[None], affine=torch.as_tensor(affine))
    out = CropBody(margin_mm=0)(FindBody()(SlicePlane(plane)(image)))
    assert "crop" in out.meta
    marked = torch.nonzero(image.as_tensor()[0] >= 0).double()
    values = image.as_tensor()[0][image.as_tensor()[0] >= 0]
    left = torch.nonzero(out.as_tensor()[0] >= 0).double()
    assert len(left) == len(marked) == voxels[BODY].numel()
    places = dict(zip(values.tolist(), (marked @ image.affine[:3, :3].T + image.affine[:3, 3]).tolist(), strict=True))
    world = left @ out.affine[:3, :3].T + out.affine[:3, 3]
    for value, place in zip(out.as_tensor()[0][out.as_tensor()[0] >= 0].tolist(), world.tolist(), strict=True):
        assert place == pytest.approx(places[value], abs=1e-6)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("selection", ["all", "3:9"])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_inverse_is_exact(square, selection, tilt):
    affine = ct().affine.numpy().copy()
    affine[0, 2], affine[1, 2] = 0.123456, tilt * 4  # oblique, and sheared like a tilted gantry
    image = ct(affine, slice_positions_mm=[float(i * i) for i in range(12)], notes=["seen"])
    crop = CropBody(margin_mm=3, square=square)
    before = SliceRange(selection)(found_and_windowed(image)) if selection != "all" else found_and_windowed(image)
    cropped = crop(before)
    (top, bottom), (left, right) = cropped.meta["crop"]
    back = crop.inverse(cropped)
    assert back.shape == before.shape
    inside = torch.zeros_like(before.as_tensor(), dtype=torch.bool)
    inside[:, top:bottom, left:right] = True
    assert torch.equal(back.as_tensor()[inside], before.as_tensor()[inside])
    assert not back.as_tensor()[~inside].any()
    assert torch.equal(back.affine, before.affine)
    assert back.applied_operations == before.applied_operations
    assert {key: str(value) for key, value in back.meta.items()} == {
        key: str(value) for key, value in before.meta.items()
    }


def test_inverse_of_a_segmentation():
    crop = CropBody()
    cropped = crop(FindBody()(ct()))
    labels = MetaTensor(torch.ones(3, *cropped.shape[1:], dtype=torch.uint8)).copy_meta_from(cropped)
    back = crop.inverse(labels)
    (top, bottom), (left, right) = cropped.meta["crop"]
    assert back.dtype == torch.uint8
    assert back.shape == (3, *SHAPE)
    assert back.sum() == back[:, top:bottom, left:right].sum() == labels.numel()
    again = crop(FindBody()(ct()))
    with pytest.raises(VolumeShapeError, match="cannot invert"):
        crop.inverse(again[:, 1:])


def test_dictionaries_crop_labels_by_the_image():
    image = ct()
    labels = MetaTensor((image.as_tensor() > -500).to(torch.uint8), affine=image.affine)
    chain = Compose(
        [
            FindBodyd("image"),
            IntensityWindowsd("image", modality="ct"),
            SliceRanged(["image", "label"], "2:8"),
            CropBodyd(["image", "label"], margin_mm=0),
        ]
    )
    out = chain({"image": image, "label": labels})
    assert out["label"].shape == out["image"].shape == (1, 20, 20, 6)
    assert out["label"].all()
    assert torch.equal(out["label"].affine, out["image"].affine)
    back = chain.inverse(out)["label"]
    assert torch.equal(back.as_tensor()[:, 8:28, 12:32, 2:8], labels.as_tensor()[:, 8:28, 12:32, 2:8])
    assert back.shape == labels.shape
    with pytest.raises(VolumeShapeError, match="label"):
        CropBodyd(["image", "label"])({"image": FindBody()(image), "label": labels[:, 1:]})
    with pytest.raises(KeyError, match="image"):
        CropBodyd(["image", "label"], allow_missing_keys=True)({"label": labels})
    with pytest.raises(SettingsError, match="ref_key"):
        CropBodyd(["image"], ref_key="other")
    assert CropBodyd("image", allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_none_changes_nothing():
    image = ct()
    assert FindBody(None)(image) is image
    assert CropBody(None)(image) is image
    assert CropBody(None).inverse(image) is image
    assert CropBodyd("image", crop=None)({"image": image})["image"] is image


def test_without_metadata_nothing_is_cropped():
    plain = torch.zeros(1, 4, 4, 4)
    try:
        set_track_meta(False)
        assert FindBody()(plain) is plain
        assert CropBody()(plain) is plain
    finally:
        set_track_meta(True)


@pytest.mark.parametrize(
    ("meta", "options", "reason"),
    [
        ({"modality": "MR"}, {}, "its modality is MR"),
        ({"modality": "PT"}, {}, "its modality is PT"),
        ({"modality": "CT"}, {"modality": "mr"}, "its modality is MR"),
        ({"intensity": "uint8"}, {}, "scaled before"),
    ],
)
def test_other_volumes_stay_whole_with_a_note(meta, options, reason):
    found = FindBody(**options)(ct(**meta))
    assert [reason in note for note in found.meta["notes"]] == [True]
    crop = CropBody()
    out = crop(found)
    assert out.shape[1:] == SHAPE
    assert "crop" not in out.meta
    assert torch.equal(crop.inverse(out).as_tensor(), found.as_tensor())
    assert "notes" not in FindBody(assume_hu=True)(ct(**meta)).meta


def test_a_volume_without_air_stays_whole_with_a_note():
    found = FindBody()(MetaTensor(torch.zeros(1, 20, 20, 20)))
    assert "no air" in found.meta["notes"][0]
    assert CropBody()(found).shape == (1, 20, 20, 20)


def test_modality_of_the_setting_beats_that_of_the_file():
    assert "notes" not in FindBody(modality="ct")(ct(modality="MR")).meta


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: image[:, 1:],
        lambda image: SlicePlane("coronal")(image),
        lambda image: MetaTensor(
            image.as_tensor(), affine=image.affine @ torch.diag(torch.tensor([1.0, -1, 1, 1])).double(), meta=image.meta
        ),
    ],
    ids=["cropped", "another plane", "flipped"],
)
def test_a_volume_that_was_turned_since_is_refused(changed):
    found = changed(FindBody()(ct()))
    with pytest.raises(VolumeShapeError, match="FindBody"):
        CropBody()(found)


def test_refusals():
    for wrong in ("none", "table", 1):
        with pytest.raises(SettingsError, match="crop"):
            FindBody(wrong)
        with pytest.raises(SettingsError, match="crop"):
            CropBody(wrong)
    for wrong in (-1, float("nan"), float("inf"), "5", None):
        with pytest.raises(SettingsError, match="margin_mm"):
            CropBody(margin_mm=wrong)
    with pytest.raises(SettingsError, match="modality"):
        FindBody(modality="pet")
    with pytest.raises(SettingsError, match="put FindBody"):
        CropBody()(ct())
    with pytest.raises(SettingsError, match="slices were selected before"):
        FindBody()(SliceRange("1:4")(ct()))
    with pytest.raises(VolumeShapeError, match="one channel"):
        FindBody()(torch.zeros(3, 4, 4, 4))


def test_volumes_of_one_size_form_a_batch():
    items = [{"image": CropBody()(SliceRange(text)(FindBody()(ct())))} for text in ("2:6", "4:9")]
    batch = collate_volumes(items)["image"]
    one, other = decollate_batch(batch)
    assert one.meta["crop"] == other.meta["crop"] == items[0]["image"].meta["crop"]
    assert other.meta["kept_indices"] == [4, 5, 6, 7, 8]
    whole = {"image": FindBody()(ct())}
    assert decollate_batch(collate_volumes([whole, whole])["image"])[1].meta["body_extents"][5] == [8, 28, 12, 32]


@pytest.mark.parametrize("seed", range(3))
def test_the_filter_decides_as_without_the_crop(seed):
    image = ct()
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0, 200, 12)
    image = MetaTensor(image.as_tensor() + noise, affine=image.affine)
    whole = InterSliceAnchorFilter(0.02)(HUWindows()(image))
    cropped = CropBody()(InterSliceAnchorFilter(0.02)(HUWindows()(FindBody()(image))))
    assert 1 < len(whole.meta["kept_indices"]) < 12
    assert cropped.meta["kept_indices"] == whole.meta["kept_indices"]
    assert cropped.meta["slice_distances"] == whole.meta["slice_distances"]
