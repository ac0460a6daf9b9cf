# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices scaled one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta

from monai_medpruner.errors import VolumeShapeError
from monai_medpruner.transforms import SliceMinMax, SliceMinMaxd

VALUES = np.random.default_rng(0).integers(-1000, 2000, (1, 9, 8, 7)).astype(np.int16)
VALUES[..., 2] = -400  # constant


def one_by_one(values: np.ndarray) -> np.ndarray:
    """The same as a plain loop in float64."""
    out = np.zeros(values.shape)
    for index in range(values.shape[-1]):
        one = values[..., index].astype(np.float64)
        if one.max() > one.min():
            out[..., index] = (one - one.min()) / (one.max() - one.min())
    return out


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_values(dtype):
    values = VALUES.astype(dtype)
    before = values.copy()
    out = SliceMinMax()(values)
    assert out.dtype == torch.float32
    assert out.amin((0, 1, 2)).tolist() == [0] * 7
    assert out.amax((0, 1, 2)).tolist() == [1, 1, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(out.numpy(), one_by_one(values), atol=1e-6)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_units_do_not_matter(scale):
    values = torch.as_tensor(VALUES, dtype=torch.float32) * scale
    np.testing.assert_allclose(SliceMinMax()(values).numpy(), one_by_one(VALUES), atol=1e-5)


def test_metadata_and_dictionary_form():
    image = MetaTensor(
        torch.as_tensor(VALUES), affine=torch.diag(torch.tensor([2.0, 2, 3, 1])), meta={"notes": ["read"]}
    )
    out = SliceMinMaxd(["image", "absent"], allow_missing_keys=True)({"image": image, "label": 1})
    np.testing.assert_allclose(out["image"].numpy(), one_by_one(VALUES), atol=1e-6)
    assert torch.equal(out["image"].affine, image.affine)
    assert out["image"].meta["notes"] == ["read"]
    assert out["label"] == 1
    set_track_meta(False)
    try:
        assert type(SliceMinMax()(image)) is torch.Tensor
    finally:
        set_track_meta(True)


def test_several_channels():
    with pytest.raises(VolumeShapeError, match="one channel"):
        SliceMinMax()(torch.rand(3, 4, 4, 4))
