# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The fused kernel gives the scores of a float64 softmax, and a kernel that fails or errs is not used."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types

import pytest
import torch

from monai_medpruner.pruners import attention, attention_received

SHAPES = [(2, 3, 100, 72), (1, 2, 64, 16), (3, 1, 7, 80), (2, 2, 2, 130, 64), (1, 1, 1, 8)]
WITH_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

SCRIPT = """
import sys, torch
from monai_medpruner.pruners.fused_attention import fused_attention_received
inputs, output = sys.argv[1:]
pairs = torch.load(inputs)
torch.save([fused_attention_received(query, key, scale) for query, key, scale in pairs], output)
"""


def expected(query, key, scale):
    """Return the mean over heads of the column sums of a softmax in float64."""
    weights = (query.double() @ key.double().transpose(-1, -2) * scale).softmax(-1)
    return weights.sum(-2).mean(-2)


def cases(*types_):
    """Return queries, keys and scales of every shape and type, with scores far apart."""
    generator = torch.Generator().manual_seed(0)
    pairs = [3 * torch.randn(2, *shape, generator=generator) for shape in SHAPES]
    return [(*pair.to(kind), pair.shape[-1] ** -0.5) for pair in pairs for kind in types_]


@WITH_TRITON
def test_kernel_in_the_interpreter(tmp_path):
    """Triton's interpreter runs the kernel without a GPU; it has no bfloat16 products."""
    given = cases(torch.float32, torch.float16)
    torch.save(given, tmp_path / "inputs.pt")
    command = [sys.executable, "-c", SCRIPT, tmp_path / "inputs.pt", tmp_path / "output.pt"]
    subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, check=True, timeout=300)
    found = torch.load(tmp_path / "output.pt")
    for scores, (query, key, scale) in zip(found, given, strict=True):
        torch.testing.assert_close(scores.double(), expected(query, key, scale), rtol=1e-3, atol=0)


@WITH_TRITON
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_kernel_on_a_gpu():
    for query, key, scale in cases(torch.float32, torch.float16, torch.bfloat16):
        scores = attention_received(query.cuda(), key.cuda(), scale)
        assert attention._fused_route(torch.device("cuda", 0), query.dtype) is not None
        torch.testing.assert_close(scores.double().cpu(), expected(query, key, scale), rtol=1e-3, atol=0)


@pytest.fixture
def use_kernel(monkeypatch):
    """Return a function that installs a kernel in Triton's place."""

    def install(kernel):
        module = types.ModuleType("monai_medpruner.pruners.fused_attention")
        module.fused_attention_received = kernel
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(attention, "find_spec", lambda _: object())
        attention._fused_route.cache_clear()
        return attention._fused_route(torch.device("cpu"), torch.float32)

    yield install
    attention._fused_route.cache_clear()


def test_right_kernel_is_used(use_kernel):
    assert use_kernel(expected) is expected


@pytest.mark.parametrize("factor", [1.002, float("nan")])
def test_kernel_with_wrong_scores_is_not_used(use_kernel, caplog, factor):
    assert use_kernel(lambda *inputs: expected(*inputs) * factor) is None
    assert "whose scores differ" in caplog.text


def test_kernel_that_fails_is_not_used(use_kernel, caplog):
    def kernel(*_):
        raise RuntimeError("Failed to find C compiler")

    assert use_kernel(kernel) is None
    assert "without Triton, which failed: Failed to find C compiler" in caplog.text


def test_without_triton(monkeypatch, caplog):
    monkeypatch.setattr(attention, "find_spec", lambda _: None)
    attention._fused_route.cache_clear()
    assert attention._fused_route(torch.device("cpu"), torch.float32) is None
    assert not caplog.text
    attention._fused_route.cache_clear()
