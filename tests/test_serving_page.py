# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of serving has the sizes that the models' dimensions give."""

from __future__ import annotations

import importlib

import pytest

from monai_medpruner.benchmark.shapes import SHAPES


@pytest.fixture
def script(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "scripts")
    return importlib.import_module("serving_sizes")


def test_the_page_is_the_sizes(repository, script, monkeypatch):
    page = repository / "docs" / "serving.md"
    monkeypatch.setattr("sys.argv", ["serving_sizes.py", "--check", str(page)])
    assert script.main() == 0


def test_sizes(script):
    """By hand for Qwen3-VL-8B: 4,096 values and three DeepStack layers; 36 layers with 8 heads of 128."""
    found = script.sizes(SHAPES["qwen3-vl-8b"])
    assert (found.row, found.cache, found.tokens) == (4 * 4096 * 2, 2 * 36 * 8 * 128 * 2, 256)
    layer = 4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 12288 + 2 * 4096 + 2 * 128
    assert found.language_model == 2 * (36 * layer + 2 * 151936 * 4096 + 4096)
