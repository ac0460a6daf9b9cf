# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The wrapper in a pipeline of transformers, and around quantized models."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    Gemma3Processor,
    QuantoConfig,
    TorchAoConfig,
    pipeline,
)

from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import family_of
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import prompt_inputs, randomize_weights, save_tiny_checkpoint

EVERYTHING = NucleusPruner(tau=1.0, contextual_ratio=0)
HALF = NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Gemma 3, whose processor needs no torchvision."""
    return save_tiny_checkpoint("gemma3", tmp_path_factory.mktemp("gemma3"))


@pytest.fixture
def stock(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    randomize_weights(model)
    return model


@pytest.fixture
def processor(folder):
    return Gemma3Processor.from_pretrained(folder)


@pytest.fixture
def messages():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    content = [{"type": "image", "image": Image.fromarray(one)} for one in pixels]
    return [{"role": "user", "content": [*content, {"type": "text", "text": "Is it?"}]}]


def answer(model, processor, messages):
    asking = pipeline("image-text-to-text", model=model, processor=processor)
    options = {"max_new_tokens": 12, "generate_kwargs": {"do_sample": False}}
    return asking(text=messages, return_full_text=False, **options)[0]["generated_text"]


def test_pipeline(stock, processor, messages):
    expected = answer(stock, processor, messages)
    assert answer(PrunedVLM(stock), processor, messages) == expected
    assert answer(PrunedVLM(stock, EVERYTHING), processor, messages) == expected
    vlm, records = PrunedVLM(stock, HALF), []
    generate = vlm.generate
    vlm.generate = lambda **inputs: generate(**inputs, on_record=records.append)
    pruned = answer(vlm, processor, messages)
    assert records[0].kept_tokens < records[0].unpruned_tokens
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = generate(**inputs, max_new_tokens=12, do_sample=False)
    assert processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == pruned


@pytest.mark.parametrize("part", ["language model", "whole model"])
@pytest.mark.filterwarnings("ignore")  # this way of quantization is deprecated, and the one that needs no other package
def test_eight_bits(stock, processor, messages, part):
    """Linear layers of 8 bits, which have no weight as a tensor: with all tokens, the stock model's answer."""
    model = copy.deepcopy(stock)
    quantized = model.get_decoder() if part == "language model" else model
    torch.ao.quantization.quantize_dynamic(quantized, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    assert not isinstance(model.get_decoder().layers[0].mlp.gate_proj, torch.nn.Linear)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    options = {"max_new_tokens": 12, "do_sample": False}
    expected = model.generate(**inputs, **options)
    assert torch.equal(PrunedVLM(model, EVERYTHING).generate(**inputs, **options), expected)
    records = []
    PrunedVLM(model, HALF).generate(**inputs, **options, on_record=records.append)
    assert records[0].kept_tokens < records[0].unpruned_tokens


def int8_of_torchao():
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_vl"])
@pytest.mark.parametrize(
    ("package", "config"),
    [
        ("bitsandbytes", lambda: BitsAndBytesConfig(load_in_8bit=True)),
        ("bitsandbytes", lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)),
        ("optimum.quanto", lambda: QuantoConfig(weights="int8")),
        ("optimum.quanto", lambda: QuantoConfig(weights="int4")),
        ("torchao", int8_of_torchao),
    ],
    ids=["bitsandbytes 8", "bitsandbytes 4", "quanto 8", "quanto 4", "torchao 8"],
)
@pytest.mark.filterwarnings("ignore")
def test_quantized_by_other_packages(tmp_path, model_type, package, config):
    """Loaded quantized by transformers, then wrapped: with all tokens, the stock model's answer."""
    pytest.importorskip("accelerate", reason="transformers loads quantized models with accelerate")
    pytest.importorskip(package)
    folder = save_tiny_checkpoint(model_type, tmp_path / "tiny")
    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    randomize_weights(plain)
    plain.save_pretrained(tmp_path / "random")
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "random", dtype=torch.float32, quantization_config=config()
    )
    inputs = prompt_inputs(family_of(plain), *load_processors(str(folder)), [(64, 96), (64, 96)])
    assert not torch.equal(model(**inputs).logits, plain(**inputs).logits)
    options = {"max_new_tokens": 12, "do_sample": False}
    expected = model.generate(**inputs, **options)
    assert torch.equal(PrunedVLM(model, EVERYTHING).generate(**inputs, **options), expected)
    records = []
    PrunedVLM(model, HALF).generate(**inputs, **options, on_record=records.append)
    assert records[0].kept_tokens < records[0].unpruned_tokens
