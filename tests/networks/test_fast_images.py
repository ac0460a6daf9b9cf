# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The batched image processing against the stock processors, and the resizing against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.errors import IntensityUnitsError, SettingsError
from monai_medpruner.networks import Checkpoint, TransformersEncoder, fast_images, pil_resize
from monai_medpruner.networks.fast_images import fast_image_inputs
from monai_medpruner.networks.pil_resize import find_resizing, resize_levels
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.testing.tiny_models import TINY_MODELS
from monai_medpruner.training import small_models
from monai_medpruner.transforms import CheckVolume, IntensityWindows, LoadVolume, SlicePlane

CPU = torch.device("cpu")
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SMALL = {"size": {"shortest_edge": 56 * 56, "longest_edge": 96 * 96}}
PROCESSORS = {
    "gemma3": lambda: Gemma3ImageProcessorPil(size={"height": 84, "width": 84}, do_pan_and_scan=False, **HALF),
    "gemma3 of its defaults": lambda: Gemma3ImageProcessorPil(size={"height": 70, "width": 98}),
    "gemma3 bicubic": lambda: Gemma3ImageProcessorPil(size={"height": 84, "width": 84}, resample=3, **HALF),
    "gemma3 lanczos": lambda: Gemma3ImageProcessorPil(size={"height": 84, "width": 84}, resample=1, **HALF),
    "gemma3 unresized": lambda: Gemma3ImageProcessorPil(do_resize=False, **HALF),
    "gemma3 rescaled": lambda: Gemma3ImageProcessorPil(size={"height": 84, "width": 84}, do_normalize=False),
    "gemma3 normalized": lambda: Gemma3ImageProcessorPil(size={"height": 84, "width": 84}, do_rescale=False),
    "gemma3 odd factor": lambda: Gemma3ImageProcessorPil(size={"height": 84, "width": 84}, rescale_factor=0.0123),
    "got_ocr2": lambda: GotOcr2ImageProcessorPil(size={"height": 112, "width": 112}),
    "qwen2_vl": lambda: Qwen2VLImageProcessorPil(**SMALL),
    "qwen3_vl": lambda: Qwen2VLImageProcessorPil(patch_size=16, **SMALL, **HALF),
    "qwen2_vl bilinear": lambda: Qwen2VLImageProcessorPil(resample=2, **SMALL),
    "video_llama_3": lambda: VideoLlama3ImageProcessorPil(merge_size=2, **SMALL, **HALF),
    "video_llama_3 unmerged": lambda: VideoLlama3ImageProcessorPil(**SMALL),
}
# odd, tiny, wide, tall, smaller and larger than the processors' sizes, and of just the size of a patch grid
SHAPES = [(84, 84), (1, 1), (3, 50), (61, 37), (300, 40), (40, 300), (128, 64), (200, 199)]


def _volume(channels, height, width, depth=5, seed=0):
    """Noise in the first half of the slices, smooth in the others."""
    generator = torch.Generator().manual_seed(seed)
    volume = torch.rand(channels, height, width, depth, generator=generator)
    ramp = torch.linspace(0, 1, width)[:, None].expand(height, -1, depth // 2)
    volume[..., : depth // 2] = ramp
    return volume


def _assert_stock(processor, volume, **size):
    stock = processor(images=slice_images(volume), return_tensors="pt", **size)
    fast = fast_image_inputs(processor, volume, CPU, **size)
    assert fast is not None
    assert list(fast) == list(stock)
    for name, expected in stock.items():
        assert fast[name].dtype == expected.dtype, name
        assert torch.equal(fast[name], expected), name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_equals_the_stock_processor(name, shape, channels):
    _assert_stock(PROCESSORS[name](), _volume(channels, *shape))


@pytest.mark.parametrize("layout", ["depth last", "slice major", "half precision"])
def test_equals_the_stock_processor_in_any_memory_layout(layout):
    volume = _volume(3, 61, 37)
    if layout == "slice major":
        volume = volume.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    _assert_stock(PROCESSORS["gemma3"](), volume.half() if layout == "half precision" else volume)


@pytest.mark.parametrize("tokens", [1, 4, 9, 1000])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "video_llama_3"])
def test_equals_the_stock_processor_under_a_token_budget(name, tokens):
    processor = PROCESSORS[name]()
    most = tokens * (processor.patch_size * processor.merge_size) ** 2
    size = {"shortest_edge": min(processor.size["shortest_edge"], most), "longest_edge": most}
    _assert_stock(processor, _volume(1, 90, 61), size=size)


@pytest.mark.parametrize("name", PROCESSORS)
def test_batches_change_nothing_and_bound_what_is_worked_on(name, monkeypatch):
    processor, volume = PROCESSORS[name](), _volume(3, 61, 56, depth=19)
    if "qwen" in name or "llama" in name:
        volume = volume[:, :56]
    whole = fast_image_inputs(processor, volume, CPU)
    sizes = []
    stock = fast_images.slice_levels
    monkeypatch.setattr(fast_images, "slice_levels", lambda voxels: sizes.append(voxels.shape[-1]) or stock(voxels))
    monkeypatch.setattr(fast_images, "_CPU_PIXELS", 1)
    parts = fast_image_inputs(processor, volume, CPU)
    assert sizes == [4, 4, 4, 4, 3]
    assert all(torch.equal(parts[one], whole[one]) for one in whole)


def test_gray_channels_share_their_memory():
    pixels = fast_image_inputs(PROCESSORS["gemma3"](), _volume(1, 30, 30), CPU)["pixel_values"]
    assert pixels.shape == (5, 3, 84, 84)
    assert pixels.untyped_storage().nbytes() == 5 * 84 * 84 * 4
    # the default mean and deviation differ from channel to channel
    apart = fast_image_inputs(PROCESSORS["got_ocr2"](), _volume(1, 30, 30), CPU)["pixel_values"]
    assert apart.is_contiguous()


@pytest.mark.parametrize(
    "processor",
    [
        SiglipImageProcessorPil(size={"height": 64, "width": 64}),
        Gemma3ImageProcessorPil(do_pan_and_scan=True),
        Gemma3ImageProcessorPil(size={"shortest_edge": 64}),
        Gemma3ImageProcessorPil(do_rescale=False, do_normalize=False),
        GotOcr2ImageProcessorPil(crop_to_patches=True),
        Qwen2VLImageProcessorPil(do_resize=False),
    ],
    ids=["unknown", "pan and scan", "other size", "bytes", "cropped", "no whole patches"],
)
def test_leaves_what_it_does_not_know_to_the_stock_processor(processor):
    assert fast_image_inputs(processor, _volume(1, 61, 37), CPU) is None


def test_refuses_other_intensities_and_modes():
    with pytest.raises(IntensityUnitsError, match="put a window"):
        fast_image_inputs(PROCESSORS["gemma3"](), _volume(1, 8, 8) * 2, CPU)
    with pytest.raises(SettingsError, match="image_processing must be 'fast' or 'stock'"):
        TransformersEncoder(Checkpoint("tiny"), image_processing="slow")


def test_encoder_gives_the_same_tokens_either_way(checkpoint):
    """For a tiny model of every family; the tokens of both ways are equal bit for bit."""
    loaded, volume = Checkpoint(str(checkpoint)), _volume(3, 61, 90)
    fast, stock = (TransformersEncoder(loaded, image_processing=mode).encode(volume) for mode in ("fast", "stock"))
    # a study that was encoded the other way is never taken from a cache, but it is of the same volume
    assert fast.key != stock.key
    assert fast.key.volume == stock.key.volume
    assert all(torch.equal(one, other) for one, other in zip(fast.tokens, stock.tokens, strict=True))


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("ct_torso_nifti/ct_small.nii.gz", "medgemma"),
        ("ct_torso_dicom", [[-160, 340]]),
        ("mr_torso_nifti/mr_small.nii.gz", "slice_minmax"),
    ],
)
def test_equals_the_stock_processors_of_all_tiny_and_phantom_models_on_real_volumes(name, windows, shared_data):
    """The encoder's inputs are equal bit for bit, and so are the kept tokens."""
    volume = SlicePlane("axial")(CheckVolume()(LoadVolume()(str(shared_data(name)))))
    volume = IntensityWindows(windows=windows)(volume)[..., ::5]
    processors = [tiny.image_processor() for tiny in TINY_MODELS.values()]
    processors += [small_models._image_processor(one) for one in ("qwen3_vl", "gemma3", "video_llama_3")]
    for processor in processors:
        _assert_stock(processor, volume)


def _pillow(levels, size, resample):
    resized = [Image.fromarray(one.numpy()).resize((size[1], size[0]), resample) for one in levels]
    return torch.from_numpy(np.stack([np.array(one) for one in resized]))


@pytest.mark.parametrize("resample", [2, 3], ids=["bilinear", "bicubic"])
def test_matrix_products_equal_pillow(resample):
    """On random sizes, noise and extremes, whichever pass Pillow begins with."""
    random = np.random.default_rng(0)
    for number in range(60):
        height, width, *size = (int(one) for one in random.integers(1, 150, 4))
        levels = torch.from_numpy(random.integers(0, 256, (2, height, width), dtype=np.uint8))
        if number % 2:
            levels = (levels > 127).to(torch.uint8) * 255
        resizing = find_resizing((height, width), tuple(size), resample, CPU)
        assert resizing is not None
        assert torch.equal(resizing(levels), _pillow(levels, size, resample))


def test_an_unknown_resampling_or_other_levels_are_left_to_pillow(monkeypatch):
    assert find_resizing((9, 9), (5, 5), 1, CPU) is None
    monkeypatch.setitem(pil_resize._FILTERS, 2, (pil_resize._bicubic, 2.0))
    assert find_resizing((9, 9), (5, 7), 2, CPU) is None


@pytest.mark.parametrize("planes", [1, 2, 3, 4, 5, 9])
def test_planes_are_resized_apart(planes):
    levels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (planes, 31, 20), dtype=np.uint8))
    assert torch.equal(resize_levels(levels, (17, 44), 3), _pillow(levels, (17, 44), 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PROCESSORS)
def test_equals_the_stock_processor_on_a_gpu(name):
    processor, volume = PROCESSORS[name](), _volume(3, 84, 84)
    stock = processor(images=slice_images(volume), return_tensors="pt")
    fast = fast_image_inputs(processor, volume.cuda(), torch.device("cuda"))
    assert all(torch.equal(fast[one].cpu(), stock[one]) for one in stock)
