# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices that went through JPEG, compared with files that Pillow wrote and read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from PIL import Image

from monai_medpruner.errors import IntensityUnitsError, SettingsError, VolumeShapeError
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.transforms import JpegSlices, describe_transform

JPEG = JpegSlices(True)


def volume(channels, depth=3):
    """Smooth shapes with noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(channels)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 56), indexing="ij")
    smooth = (rows * columns)[None, :, :, None].expand(channels, -1, -1, depth)
    return MetaTensor((smooth + 0.2 * torch.rand(smooth.shape, generator=generator)).clamp(0, 1), meta={"notes": ["a"]})


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_to_files_of_pillow(channels, tmp_path):
    image = volume(channels)
    out = JPEG(image)
    assert (out.shape, out.dtype, out.meta["notes"]) == (image.shape, torch.float32, ["a"])
    changed = False
    for index in range(image.shape[-1]):
        levels = np.round(image[..., index].numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(levels if channels == 3 else levels[..., 0]).save(tmp_path / "slice.jpg")
        with Image.open(tmp_path / "slice.jpg") as file:
            expected = np.asarray(file.convert("RGB"))
        # what the image processor gets in the end
        assert np.array_equal(np.asarray(slice_images(out[..., [index]])[0]), expected)
        changed |= bool((expected != (levels if channels == 3 else levels.repeat(3, 2))).any())
    assert changed


def test_slices_lie_together_and_the_input_is_not_changed():
    image = volume(1)
    before = image.clone()
    out = JPEG(image)
    assert out.as_tensor().permute(3, 0, 1, 2).is_contiguous()
    assert torch.equal(image, before)


def test_off_is_the_same_object():
    image = volume(1)
    assert JpegSlices()(image) is image
    assert describe_transform(JpegSlices()) == {"name": "JpegSlices", "arguments": {"jpeg": False}}


def test_arrays_and_volumes_without_metadata():
    image = volume(3)
    assert torch.equal(JPEG(image.numpy()).as_tensor(), JPEG(image).as_tensor())
    set_track_meta(False)
    try:
        assert type(JPEG(image)) is torch.Tensor
    finally:
        set_track_meta(True)


def test_refused():
    with pytest.raises(SettingsError, match="must be true or false"):
        JpegSlices("yes")
    with pytest.raises(VolumeShapeError, match="1 or 3"):
        JPEG(torch.zeros(2, 8, 8, 2))
    for wrong in (-0.1, 1.2, torch.nan):
        with pytest.raises(IntensityUnitsError, match=r"\[0, 1\]"):
            JPEG(torch.full((1, 8, 8, 2), wrong))
