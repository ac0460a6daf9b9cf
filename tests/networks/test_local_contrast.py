# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Local contrast: against sums in float64, pixels of every family, and the tokens that a budget leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint, TransformersEncoder
from monai_medpruner.networks.local_contrast import local_contrast_of, slice_planes
from monai_medpruner.pruners import LocalContrast, LocalContrastPruner, TokenBudget
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.testing.tiny_models import TINY_MODELS

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SMALL = {"size": {"shortest_edge": 56 * 56, "longest_edge": 96 * 96}}
# processors, the size of a slice that they do not resize, and the number of patches along a token's side
PROCESSORS = {
    "gemma3": (Gemma3ImageProcessorPil(size={"height": 64, "width": 64}, **HALF), (64, 64), 4),
    "qwen2_vl": (Qwen2VLImageProcessorPil(**SMALL, **HALF), (56, 84), 2),
    "qwen3_vl": (Qwen2VLImageProcessorPil(patch_size=16, **SMALL, **HALF), (64, 96), 2),
    "video_llama_3": (VideoLlama3ImageProcessorPil(merge_size=2, **SMALL, **HALF), (56, 84), 2),
    "video_llama_3 unmerged": (VideoLlama3ImageProcessorPil(merge_size=1, **SMALL, **HALF), (84, 56), 1),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_of_every_layout_become_the_slices(name):
    processor, (height, width), merge = PROCESSORS[name]
    pictures = np.random.default_rng(0).integers(256, size=(3, height, width, 3), dtype=np.uint8)
    inputs = processor(images=[Image.fromarray(one) for one in pictures], return_tensors="pt")
    patch = getattr(processor, "patch_size", 4)
    patch = patch if isinstance(patch, int) else 4
    grids = [(height // (patch * merge), width // (patch * merge))] * 3
    planes = slice_planes(inputs["pixel_values"], grids, merge**2)
    expected = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(torch.stack(list(planes)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(24, 3 * 17 * 16), (24, 4 * 16 * 16), (2, 3, 4)])
def test_other_pixels_are_refused(shape):
    with pytest.raises(SettingsError, match="use another pruner"):
        slice_planes(torch.zeros(shape), [(2, 3)], 4)


def head(depth=4, side=96, noise=0.01):
    """Slices ``(D, side, side)`` in [0, 1]: air, a ring of bone, gray inside, and one small bright spot in slice 2."""
    rows, columns = np.mgrid[:side, :side]
    radius = np.hypot(rows - side / 2, columns - side / 2) / side
    plane = np.where(radius > 0.45, 0.0, np.where(radius > 0.4, 1.0, 0.4))
    volume = np.repeat(plane[None], depth, 0)
    spot = np.hypot(rows - 0.4 * side, columns - 0.6 * side) < 0.03 * side
    volume[2][spot] += 0.15
    noisy = volume + noise * np.random.default_rng(0).standard_normal(volume.shape)
    return torch.from_numpy(noisy.clip(0, 1)).float()


def plain_contrast(volume, rows, columns):
    """The definition in float64, all pairs of pixels at once, for slices of 16 pixels a token's side."""
    volume = volume.double().numpy()
    volume = (volume - volume.min()) / (volume.max() - volume.min())
    places = np.stack(np.mgrid[: 16 * rows, : 16 * columns], -1).reshape(-1, 2)
    away = np.abs(places[:, None] - places[None])
    square = lambda mask, size: (away.max(-1) <= size).astype(float) @ mask > 0  # noqa: E731
    result = []
    for plane in volume:
        values = plane.ravel()
        clipped = (values <= 0.05) | (values >= 0.95)
        clipped = square(~square(~clipped, 1), 1)
        inside = ~square(clipped, 4)
        total = np.zeros(len(values))
        for weight in (~clipped, inside):
            best = np.zeros(len(values))
            for sigma in (1.5, 2.5, 4.0):
                means = []
                for width in (sigma, 4 * sigma):
                    line = np.exp(-(np.arange(-np.ceil(3 * width), np.ceil(3 * width) + 1) ** 2) / (2 * width**2)).sum()
                    kernel = np.exp(-(away**2).sum(-1) / (2 * width**2)) * (away.max(-1) <= np.ceil(3 * width))
                    means.append(kernel @ (values * weight) / np.maximum(kernel @ weight, 1e-3 * line**2))
                best = np.maximum(best, np.abs(means[0] - means[1]))
            total += best
        squares = (total / 2 * inside).reshape(rows, 16, columns, 16)
        result.append(squares.max((1, 3)).ravel())
    return np.stack(result)


def test_values_are_those_of_plain_sums():
    volume = head(side=48, depth=3)[:, :32]
    values = local_contrast_of([one[None] for one in volume], [(2, 3)] * 3)
    expected = plain_contrast(volume, 2, 3)
    assert expected.max() > 0.05
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)


def test_the_spot_has_the_highest_contrast_and_edges_have_little():
    values = local_contrast_of([one[None] for one in head()], [(6, 6)] * 4)
    spot = 2 * 6 + 3  # of 0.4 and 0.6 of the slice's sides
    assert values.argmax() == 2 * 36 + spot
    values[2, spot] = 0
    assert float(values.max()) < 0.03


def test_offset_scale_resolution_and_channel_do_not_matter():
    volume = head(noise=0)
    plain = local_contrast_of([one[None] for one in volume], [(6, 6)] * 4)
    finer = volume.repeat_interleave(2, 1).repeat_interleave(2, 2)
    for other in (volume * 3 - 2, finer, volume.to(torch.bfloat16)):
        close = local_contrast_of([one.expand(3, -1, -1) for one in other], [(6, 6)] * 4)
        torch.testing.assert_close(close, plain, atol=4e-3, rtol=0)


def test_slices_of_several_sizes_and_a_volume_without_contrast():
    volume = head()
    slices = [volume[2][None], volume[2, 16:80][None], torch.zeros(1, 16, 16)]
    values = local_contrast_of(slices, [(6, 6), (4, 6), (1, 1)])
    assert values.shape == (3, 36)
    assert values[1].argmax() == 6 + 3
    assert not values[1, 24:].any()
    assert not values[2].any()
    assert not local_contrast_of([torch.full((1, 32, 32), 0.3)] * 2, [(2, 2)] * 2).any()


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_budget_leaves_the_spot_with_every_family(name, tmp_path):
    checkpoint = Checkpoint(str(save_tiny_checkpoint(name, tmp_path)), parts="vision")
    volume = head(side=112).permute(1, 2, 0)[None]
    encoder = TransformersEncoder(
        checkpoint, LocalContrastPruner(), budget=TokenBudget(retention=0.3, share_slices=False)
    )
    records = encoder.encode(volume).record.slices
    rows, columns = records[2].grid
    assert bool(records[2].keep[int(0.4 * rows) * columns + int(0.6 * columns)])
    one_by_one = TransformersEncoder(
        checkpoint, LocalContrastPruner(), budget=TokenBudget(retention=0.3, share_slices=False), vision_batch_size=1
    )
    for first, second in zip(records, one_by_one.encode(volume).record.slices, strict=True):
        assert torch.equal(first.keep, second.keep)


def test_it_asks_for_nothing_else():
    assert LocalContrastPruner().signals == {LocalContrast()}
    with pytest.raises(SettingsError, match="keep_ratio"):
        LocalContrastPruner(keep_ratio=0.0)
