# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The small trained models: size, equal inputs in training and inference, and answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from monai_medpruner.data.phantom import PRESETS, QUESTIONS, generate_phantom, phantom_command, phantom_seed
from monai_medpruner.engines import VolumeQA
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.training import PHANTOM_PROMPT, TOKEN_PIXELS, training_phantom
from monai_medpruner.training.small_models import save_small_checkpoint

MODELS = Path(__file__).parents[2] / "bundles" / "medpruner_phantom" / "models"
FAMILIES = sorted(path.name for path in MODELS.glob("*"))


@pytest.fixture(scope="module")
def bundle(repository):
    return repository / "bundles" / "medpruner_phantom"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A phantom written by the command."""
    folder = tmp_path_factory.mktemp("phantoms")
    phantom_command(1, 9100, folder, PRESETS["small"])
    return folder


def test_training_and_inference_get_equal_inputs(bundle, written):
    """A phantom in memory through train.json and its file through inference.json are bitwise equal."""
    training = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "train.json"))
    inference = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
    inference["gamma"] = "none"
    inference["bundle_root"] = str(bundle)
    phantom = generate_phantom(phantom_seed(9100, 0), PRESETS["small"])
    seen = training_phantom(phantom, training.get_parsed_content("preprocessing"), TOKEN_PIXELS)
    asked = inference.get_parsed_content("preprocessing")({"image": written / "volumes" / "phantom_000000.nii.gz"})
    images = slice_images(asked["image"])
    assert len(images) == len(seen.slices)
    for image, trained in zip(images, seen.slices, strict=True):
        red, green, blue = (torch.from_numpy(np.array(part)) for part in image.split())
        assert torch.equal(red, torch.from_numpy(trained))
        assert torch.equal(red, green)
        assert torch.equal(red, blue)
    prompt = inference.get_parsed_content("prompt")
    assert prompt == PHANTOM_PROMPT


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_models(family):
    """They are small, in 16 bits, complete, and have a model card."""
    folder = MODELS / family
    assert (folder / "model.safetensors").stat().st_size < 6e6
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# ")
    network = VolumeQA.from_pretrained(str(folder), prompt=PHANTOM_PROMPT, max_new_tokens=8, device="cpu")
    assert network.describe()["model"]["model_type"] == family
    assert network.describe()["model"]["random_weights"] is False
    assert sum(parameter.numel() for parameter in network.engine.checkpoint.model.parameters()) < 5e6


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_models_have_the_architecture_of_training(tmp_path, family):
    """Same architecture, tokenizer and image processor; only the weights are trained."""
    save_small_checkpoint(family, tmp_path)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (MODELS / family, tmp_path)]
    for config in configs:
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part.pop("dtype", None)
    assert configs[0] == configs[1]
    names = ["tokenizer.json", "chat_template.jinja", "preprocessor_config.json"]
    for name in [*names, *(path.name for path in tmp_path.glob("processor_config.json"))]:
        assert (MODELS / family / name).read_bytes() == (tmp_path / name).read_bytes()


def answers_now(bundle, folder, family):
    """Return all answers of a shipped model about the phantoms in a folder, with the bundle's settings."""
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
    for name, value in {"bundle_root": str(bundle), "family": family, "device": "cpu"}.items():
        parser[name] = value
    preprocessing, network = (parser.get_parsed_content(name) for name in ("preprocessing", "network_def"))
    found = {}
    for path in sorted((folder / "volumes").iterdir()):
        data = preprocessing({"image": str(path)})
        (study,) = network(data["image"][None], [[question for question, _ in QUESTIONS.values()]])
        found[path.name] = [answer.text for answer in study.answers]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_equal_the_recorded_answers(bundle, tmp_path, family):
    """They equal the answers at the time when the weights were stored, whether right or wrong."""
    phantom_command(3, 9200, tmp_path / "phantoms", PRESETS["small"])
    recorded = json.loads((Path(__file__).parent / "phantom_answers.json").read_text(encoding="utf-8"))
    assert answers_now(bundle, tmp_path / "phantoms", family) == recorded[family]


def test_the_stock_processor_reads_a_shipped_model():
    """Gemma 3's processor must know how many tokens a slice has; those of the others need torchvision."""
    processor = AutoProcessor.from_pretrained(MODELS / "gemma3")
    content = [{"type": "image", "image": Image.new("L", (96, 96))}, {"type": "text", "text": "Which organ?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    model = PrunedVLM(AutoModelForImageTextToText.from_pretrained(MODELS / "gemma3"), NucleusPruner(tau=0.5))
    records = []
    model.generate(**inputs, max_new_tokens=1, on_record=records.append)
    assert records[0].unpruned_tokens == model.model.config.mm_tokens_per_image == 36
