# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The short form of benchmarks/soak.py: no file handle and no child process is left."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from dataclasses import replace

import pytest


@pytest.fixture
def soak(repository, monkeypatch):
    pytest.importorskip("pydicom", reason="pydicom writes the series, see the extra test")
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module("soak")


def test_nothing_is_left(soak, tmp_path):
    """36 questions about 9 volumes of both kinds, one of them damaged, each read twice."""
    gc.collect()
    before = soak.usage(0).children  # of other tests in this process
    held = list(soak.soak(9, 36, tmp_path))
    assert [one.volume for one in held] == list(range(18))
    assert {one.children for one in held} == {before}
    assert {one.decoders for one in held[1:]} <= {1, 2}
    assert len({one.files for one in held[9:]}) == 1, held  # exact, once the decoders run


def test_a_child_and_a_file_are_seen(soak, tmp_path):
    before = soak.usage(0)
    with (tmp_path / "file").open("w"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        now = soak.usage(0)
        child.communicate(b"\n")
    assert now.children == before.children + 1
    assert now.files >= before.files + 2


def test_verdict(soak):
    flat = [soak.Usage(number, 1000.0 + number % 3, 40, 0, 1) for number in range(50)]
    assert soak.verdict(flat)["within_limits"] is True
    growing = [replace(one, resident_mb=1000.0 + 3 * one.volume) for one in flat]
    assert soak.verdict(growing)["growth"] > 0.05
    for change in ({"files": 41}, {"children": 1}, {"decoders": 3}):
        assert soak.verdict([*flat[:-1], replace(flat[-1], **change)])["within_limits"] is False
    assert soak.verdict(growing)["within_limits"] is False
