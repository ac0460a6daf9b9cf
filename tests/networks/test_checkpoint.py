# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Loading checkpoints, and errors that say what to do."""

from __future__ import annotations

import json
from unittest.mock import MagicMock

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertConfig

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import CheckpointError, ModelMemoryError, UnsupportedModelError
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks import checkpoint as loading
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the checkpoint that a test may damage."""
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_local_folder(checkpoint):
    vlm = PrunedVLM.from_pretrained(
        str(checkpoint), NucleusPruner(), dtype="bfloat16", attn_implementation="eager", device="cpu"
    )
    assert vlm.model.dtype == torch.bfloat16
    assert not vlm.model.training
    assert vlm.model.config.get_text_config()._attn_implementation == "eager"
    stored = load_file(checkpoint / "model.safetensors")
    # names in a checkpoint may differ from those of the modules
    name = next(name for name in stored if name.endswith("embed_tokens.weight"))
    torch.testing.assert_close(vlm.model.get_input_embeddings().weight, stored[name].bfloat16())


def test_default_dtype_on_a_cpu_is_float32(checkpoint):
    assert loading.default_dtype(torch.device("cpu")) == torch.float32
    assert loading.default_dtype(torch.device("cuda")) == torch.bfloat16
    assert loading.load_model(str(checkpoint), device="cpu").dtype == torch.float32


def test_missing_weights_are_named(copy):
    weights = load_file(copy / "model.safetensors")
    gone = sorted(name for name in weights if "visual" in name or "vision" in name)[0]
    save_file(
        {name: value for name, value in weights.items() if name != gone}, copy / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"lacks 1 weights"):
        loading.load_model(str(copy))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_incomplete_folder(copy, file):
    (copy / file).unlink()
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        loading.load_model(str(copy))


def test_pickled_weights_are_not_loaded(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        loading.load_model(str(copy))


def test_remote_code_is_never_run(copy):
    config = json.loads((copy / "config.json").read_text())
    config["model_type"] = "somebody_elses"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(CheckpointError):
        loading.load_model(str(copy))


def test_unsupported_model(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"'bert'.*qwen3_vl.*new_family"):
        loading.load_model(str(tmp_path))


def test_tiny_model_of_an_unknown_family(tmp_path):
    with pytest.raises(UnsupportedModelError):
        save_tiny_checkpoint("bert", tmp_path)


def test_model_larger_than_memory(checkpoint, monkeypatch):
    monkeypatch.setattr(loading, "free_memory", lambda device: 1000)
    monkeypatch.setattr(
        loading.AutoModelForImageTextToText, "from_pretrained", lambda *_, **__: pytest.fail("was loaded")
    )
    with pytest.raises(ModelMemoryError, match=r"GB for its weights in float32, but cpu has 0\.0 GB free"):
        loading.load_model(str(checkpoint), device="cpu")


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (GatedRepoError("gated", response=MagicMock()), "hf auth login"),
        (RepositoryNotFoundError("none", response=MagicMock()), "no such model on the Hub"),
        (LocalEntryNotFoundError("offline"), "hf download someone/model"),
        (ValueError("odd"), "neither a local folder nor"),
    ],
    ids=["gated", "not found", "offline", "other"],
)
def test_advice_for_errors(monkeypatch, cause, advice):
    def fail(*_, **__):
        raise OSError("cannot") from cause

    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    with pytest.raises(CheckpointError, match=advice):
        loading.load_model("someone/model")


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_no_such_folder(path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        loading.load_model(path)


def test_hulumed_must_be_converted_first(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "hulumed_qwen2"}))
    for path in (str(copy), "/bundles/medpruner_hulumed/models/Hulu-Med-7B"):
        with pytest.raises(CheckpointError, match="convert_hulumed SOURCE DESTINATION"):
            loading.load_model(path)


def test_processors_need_no_torchvision(checkpoint):
    image_processor, tokenizer = loading.load_processors(str(checkpoint))
    assert type(image_processor).__name__.endswith("Pil")
    assert tokenizer.chat_template
    with pytest.raises(CheckpointError):
        loading.load_processors("/no/such/folder")


def test_processors_saved_as_one_file(copy):
    """transformers 5 stores the image processor inside processor_config.json."""
    before, _ = loading.load_processors(str(copy))
    nested = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    image_processor, tokenizer = loading.load_processors(str(copy))
    assert type(image_processor) is type(before)
    assert image_processor.to_dict() == before.to_dict()
    assert tokenizer.chat_template


def test_processors_with_torchvision(checkpoint):
    """With torchvision the image processor may be another class. It must also produce tokens."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported here: {error}")
    network = VolumeQA.from_pretrained(str(checkpoint), NucleusPruner())
    assert network(torch.rand(1, 1, 64, 96, 2)).shape[0] == 1
