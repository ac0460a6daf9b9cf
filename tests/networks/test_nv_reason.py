# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint in the form of NV-Reason-CXR-3B, a Qwen2.5-VL with 3 billion parameters, through this family.

Its configuration has the fields and the flat layout that Qwen2.5-VL-3B was published with, and smaller numbers. The
weights have the names of that time, and there is no ``lm_head``, as embeddings and output layer share their weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from monai_medpruner.bundles import bundle_for_checkpoint
from monai_medpruner.cli.main import main
from monai_medpruner.engines import VolumeQA
from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.families import Qwen25VLFamily
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import TINY_MODELS, byte_tokenizer, randomize_weights

CONFIG = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "vision_config": {
        "depth": 8,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 64,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [3, 7],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
}
PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


def published_name(name: str) -> str:
    """The name of a weight in the published files."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("NV-Reason-CXR-3B")
    tiny = TINY_MODELS["qwen2_5_vl"]
    tokenizer = byte_tokenizer(tiny)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tiny.tokens.items()}
    config = {**CONFIG, **ids, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config["bos_token_id"] = config["pad_token_id"] = tokenizer.pad_token_id
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder)).eval()
    randomize_weights(model)
    weights = {published_name(name): tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(
        {name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def test_weights_and_configuration(checkpoint):
    """Every weight is found, the output layer is the embedding, and numbers are those of the configuration."""
    loaded = Checkpoint(str(checkpoint), device="cpu", dtype="float32")
    model = loaded.model
    assert isinstance(loaded.family, Qwen25VLFamily)
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    text, vision = model.config.get_text_config(), model.config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, vision.depth) == (64, 3, 8)
    assert list(vision.fullatt_block_indexes) == [3, 7]
    assert text.rope_parameters["mrope_section"] == [2, 3, 3]
    assert text.rope_parameters["rope_theta"] == 1e6
    # attention is scored where a block sees the whole slice
    assert loaded.family.scoring_attention is model.model.visual.blocks[7].attn


def test_a_study_and_a_chest_radiograph_are_answered(checkpoint):
    """The model is one of radiographs; one image is a volume of one slice."""
    network = VolumeQA.from_pretrained(
        str(checkpoint), NucleusPruner(tau=0.5, temperature=0.5), max_new_tokens=3, device="cpu", dtype="float32"
    )
    for depth in (1, 4):
        volume = torch.rand(1, 112, 140, depth, generator=torch.Generator().manual_seed(depth))
        study = network.encode(volume)
        assert study.grids == [(4, 5)] * depth
        assert 0 < sum(study.record.kept_tokens) < 20 * depth
        answer = network.answer(study, "Is there a pneumothorax?")
        assert 1 <= answer.new_tokens <= 3
        again = network.answer(study, ["Is there a pneumothorax?", "No.", "Is the heart large?"])
        assert again.visual_tokens == answer.visual_tokens


def test_our_command(checkpoint, shared_data, tmp_path, capsys):
    assert bundle_for_checkpoint(str(checkpoint)).name == "medpruner_qwen3vl"
    image = str(shared_data("ct_torso_nifti/ct_small.nii.gz"))
    words = ["--model", str(checkpoint), "--device", "cpu", "--slices", "3:6", "--max_new_tokens", "3"]
    main(["ask", "--image", image, "--question", "a?", *words, "--output_dir", str(tmp_path)])
    (line,) = [json.loads(text) for text in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert line["settings"]["model"]["model_type"] == "qwen2_5_vl"
    assert 1 <= line["new_tokens"] <= 3
