# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""vLLM in this process generates what transformers does from the same pruned studies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own")

FULL = ["qwen3_vl", "video_llama_3"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "phantoms"
    command = [sys.executable, "-m", "monai_medpruner", "phantom", "--preset", "small", "--count", "3", "--seed", "7"]
    subprocess.run([*command, "--out", str(folder)], check=True, timeout=300)
    return folder


def compared(family, phantoms, *options):
    script = Path(__file__).with_name("compare_engines.py")
    command = [sys.executable, str(script), family, str(phantoms), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("options", [(), ("--batched_tokens", "64")], ids=["whole", "chunks"])
@pytest.mark.parametrize("family", FULL)
def test_same_tokens(phantoms, family, options):
    """12 questions, 16 tokens each; chunks split the tokens of a slice over steps of the engine."""
    found = compared(family, phantoms, *options)
    assert len(found["lines"]) == 12
    assert all(line["equal"] for line in found["lines"])
    assert max(line["difference"] for line in found["lines"]) < 1e-4
    assert all(found["answers"])
    if family == "qwen3_vl":  # the control: other positions, other log-probabilities
        assert max(found["renumbered"]) > 1e-3


def test_gemma3(phantoms):
    """vLLM's attention on a CPU reads images one way, so that log-probabilities differ; answers do not."""
    found = compared("gemma3", phantoms)
    assert all(found["answers"])
    assert max(line["difference"] for line in found["lines"] if line["equal"]) < 0.1
