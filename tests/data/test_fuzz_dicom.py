# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Mutated DICOM files are read with pydicom's values, or refused; ``scripts/fuzz_dicom.py`` reads more of them."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import numpy as np
import pytest

from monai_medpruner.data import Volume

pytest.importorskip("pydicom", minversion="3")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
#: seeds whose mutants end the decoder; a restart takes seconds, so there are few
ENDING, OTHER = 2, 38


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("fuzz_dicom")


def test_forty_mutants(fuzz):
    kinds = {seed: fuzz.mutant(seed)[0] for seed in range(200)}
    ending = [seed for seed, kind in kinds.items() if kind == "ending_mutant"][:ENDING]
    other = [seed for seed, kind in kinds.items() if kind != "ending_mutant"][:OTHER]
    found = fuzz.run(ending + other)
    assert len(found) == 40
    assert {seed: text for seed, (_, text) in found.items() if text.startswith("FINDING")} == {}
    assert [found[seed][1] for seed in ending] == ["ended the decoder"] * ENDING
    outcomes = {text for _, text in found.values()}
    assert {"read", "refused"} <= outcomes


def test_a_mutant_is_made_again_by_its_seed(fuzz):
    assert [fuzz.mutant(seed) for seed in range(20)] == [fuzz.mutant(seed) for seed in range(20)]


def test_other_values_are_a_finding(fuzz, tmp_path):
    class Wrong:
        def read(self, path):
            return Volume(np.zeros((24, 16, 1), np.float32), np.eye(4), {})

    (tmp_path / "m.dcm").write_bytes(fuzz.encode(fuzz.base(random.Random(1))))
    assert fuzz.outcome(tmp_path / "m.dcm", Wrong()).startswith("FINDING")
