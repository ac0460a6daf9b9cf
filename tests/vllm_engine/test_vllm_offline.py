# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""vLLM in this process generates what transformers does from the same pruned studies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from phantom_studies import make_phantoms
from random_models import RANDOM_FAMILIES

pytest.importorskip("vllm", reason="vLLM has an environment of its own")

MROPE = ("qwen3_vl", *RANDOM_FAMILIES)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return make_phantoms(tmp_path_factory.mktemp("phantoms") / "phantoms", 3)


def run(script, *arguments, **environment):
    """What a script prints last; each engine has a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def check_equal(lines):
    assert len(lines) == 12
    assert all(line["equal"] for line in lines)
    assert max(line["difference"] for line in lines) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="whole"),
        pytest.param(("--batched_tokens", "64"), id="chunks", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("family", [*MROPE, "video_llama_3"])
def test_same_tokens(phantoms, family, options):
    """12 questions, 16 tokens each; chunks split the tokens of a slice over steps of the engine."""
    found = run("compare_engines.py", family, phantoms, *options)
    check_equal(found["lines"])
    assert all(found["answers"])
    assert min(found["lengths"]) > 64  # no prompt fits into one step of the engine with chunks
    if family in MROPE:  # the control: other positions, other log-probabilities
        assert max(found["renumbered"]) > 1e-3


def test_gemma3(phantoms):
    """Gemma 3 attends both ways within a slice. vLLM's attention on a CPU does not, and that is the only difference.

    With transformers told to attend one way as well, tokens are equal and log-probabilities too. By the triangle
    inequality, vLLM then differs from the model proper by what the mask alone changes, and not more.
    """
    found = run("compare_engines.py", "gemma3", phantoms)
    check_equal(found["one_way"])
    assert all(found["answers"])
    assert max(line["difference"] for line in found["lines"]) < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="vLLM attends both ways within an image on a GPU alone")
def test_gemma3_attends_both_ways(phantoms):
    found = run("compare_engines.py", "gemma3", phantoms)
    check_equal(found["lines"])
    assert all(found["answers"])


@pytest.mark.parametrize(
    "family", ["qwen3_vl", *(pytest.param(one, marks=pytest.mark.full) for one in (*RANDOM_FAMILIES, "gemma3"))]
)
def test_pictures_as_with_stock_vllm(family):
    """Prompts with ordinary pictures, and with the vision encoder in the engine."""
    own = run("pixel_answers.py", family)
    stock = run("pixel_answers.py", family, VLLM_PLUGINS="")
    assert own["module"].startswith("monai_medpruner.")
    assert stock["module"].startswith("vllm.")
    assert own["tokens"] == stock["tokens"]
    assert own["logprobs"] == stock["logprobs"]
