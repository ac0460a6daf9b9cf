# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The commands of the phantom bundle, each run as a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from monai_medpruner.data.phantom import PRESETS, phantom_command


@pytest.fixture(scope="module")
def bundle(repository):
    return repository / "bundles" / "medpruner_phantom"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Sixteen phantoms with more than sixty questions."""
    folder = tmp_path_factory.mktemp("phantoms")
    phantom_command(16, 9300, folder, PRESETS["small"])
    return folder


def run(*words, cwd):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_sixty_questions_in_two_minutes(bundle, phantoms, tmp_path):
    """Evaluation with the bundle's defaults, including startup. Most answers are right."""
    configs = [str(bundle / "configs" / f"{name}.json") for name in ("inference", "evaluate")]
    settings = {"task": "closed", "dataset_dir": phantoms, "output_dir": tmp_path / "out", "device": "cpu"}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    started = time.monotonic()
    run("-m", "monai.bundle", "run", "--config_file", configs, "--bundle_root", bundle, *words, cwd=tmp_path)
    assert time.monotonic() - started < 120
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(lines) >= 60
    assert all(line["status"] == "ok" for line in lines)
    assert metrics["micro"]["accuracy"]["value"] > 80
    assert metrics["retention"]["overall"] < 0.1


def test_training_starts_from_the_command_line(bundle, tmp_path):
    """Two steps of each stage, and the saved model."""
    toy = {"warm_up_phantoms": 36, "answer_phantoms": 36, "warm_up_slices": 6, "answer_volumes": 2, "device": "cpu"}
    for stage in ("warm_up", "answer"):
        toy |= {f"{stage}_epochs": 1, f"{stage}_steps": 2}
    toy["warm_up::pool::added_lesions"] = 1
    words = [word for name, value in toy.items() for word in (f"--{name}", value)]
    config = bundle / "configs" / "train.json"
    words += ["--output_dir", tmp_path / "out", "--family", "gemma3"]
    run("-m", "monai.bundle", "run", "--config_file", config, "--bundle_root", bundle, *words, cwd=tmp_path)
    assert (tmp_path / "out" / "gemma3" / "model" / "model.safetensors").is_file()


def test_evidence_command(repository, tmp_path):
    """Two phantoms with every configuration, and the page with its tables and figures."""
    words = ["--count", 2, "--families", "qwen3_vl", "--work", tmp_path / "work", "--out", tmp_path / "docs"]
    run(repository / "benchmarks" / "evidence.py", *words, cwd=tmp_path)
    page = (tmp_path / "docs" / "evidence_phantoms.md").read_text(encoding="utf-8")
    for name in ("unpruned", "blind", "shuffled", "option: one nucleus per volume", "**MedPruner"):
        assert f"\n| {name}" in page
    for name in ("evidence_qwen3_vl.png", "evidence_qwen3_vl_attention.png"):
        assert f"({name})" in page
        assert (tmp_path / "docs" / name).stat().st_size > 10_000
