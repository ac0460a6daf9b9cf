# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The settings that choose the engine, without vLLM."""

from __future__ import annotations

import importlib.util

import pytest

from monai_medpruner.bundles import open_bundle
from monai_medpruner.cli import main as command_line
from monai_medpruner.engines import TransformersEngine
from monai_medpruner.engines.vllm import OfflineVLLMEngine, ServerVLLMEngine
from monai_medpruner.settings import bundle_folders


def opened(**settings):
    return open_bundle(bundle_folders()["medpruner_qwen3vl"], {"model_id": "tiny", **settings})


def test_the_setting_chooses_the_engine_and_what_is_loaded():
    """With vLLM the language model is not loaded on this side."""
    network = opened().network_def
    assert isinstance(network.engine, TransformersEngine)
    assert network.encoder.checkpoint.parts == "all"
    network = opened(engine="vllm", endpoint="http://127.0.0.1:8000/", language_model="/exported", limit_seconds=7)
    network = network.network_def
    assert isinstance(network.engine, ServerVLLMEngine)
    assert network.engine.checkpoint is network.encoder.checkpoint
    assert (network.engine.endpoint, network.engine.language_model) == ("http://127.0.0.1:8000", "/exported")
    assert network.engine.timeout_s == 7
    assert len(network.encoder.checkpoint.model.get_decoder().layers) == 0
    assert network.describe()["engine"]["name"] == "vllm"


def asked(image, folder, capsys, *words):
    """Ask a question, and return the exit status and standard error."""
    shared = ["ask", "--image", str(image), "--question", "a?", "--model", "tiny", "--slices", "3:6"]
    with pytest.raises(SystemExit) as ended:
        command_line.main([*shared, "--output_dir", str(folder), *words])
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "vlm"], "there is no engine 'vlm'; there are: transformers, vllm"),
        (["--engine", "vllm", "--endpoint", "http://127.0.0.1:1"], "no answer from the vLLM server at"),
        (["--engine", "vllm", "--endpoint", "127.0.0.1:8000"], "endpoint must be an http address"),
        (
            ["--engine", "vllm", "--endpoint", "http://127.0.0.1:1", "--pruner", "cdpruner"],
            "the pruner needs the question's embeddings",
        ),
    ],
    ids=["unknown", "no server", "no address", "pruner of the question"],
)
def test_errors_are_one_line(shared_data, tmp_path, capsys, words, message):
    status, written = asked(shared_data("ct_torso_nifti/ct_small.nii.gz"), tmp_path / "out", capsys, *words)
    assert status == 1
    assert message in written.strip().splitlines()[-1]


def test_vllm_in_this_process():
    pytest.importorskip("vllm")
    assert isinstance(opened(engine="vllm").network_def.engine, OfflineVLLMEngine)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_is_not_installed(shared_data, tmp_path, capsys):
    image = shared_data("ct_torso_nifti/ct_small.nii.gz")
    status, written = asked(image, tmp_path / "out", capsys, "--engine", "vllm")
    assert status == 1
    assert "the engine vllm needs the package vllm" in written
