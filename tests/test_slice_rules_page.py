# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the slice rules says what its committed results say, and their arithmetic is right."""

from __future__ import annotations

import importlib
import json

import pytest


@pytest.fixture
def benchmark(repository, monkeypatch):
    """Return a function: name of a benchmark -> its module."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module


def test_the_page_is_the_results(repository, benchmark):
    folder = repository / "benchmarks" / "results"
    results, answers, slices = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("slice_rules", "slice_rule_answers", "slices")
    )
    page = (repository / "docs" / "slice_rules.md").read_text(encoding="utf-8")
    assert page == benchmark("slice_rules_page").page(results, answers, slices)


def test_share_of_balls_met(benchmark):
    """Centers of balls of 2 mm lie in 1 to 9 mm; slices at 3 and 4 mm meet those in 2 to 5 mm."""
    met = benchmark("slice_rules").balls_met
    positions = [float(place) for place in range(11)]
    assert met(positions, [3, 4], 2.0) == pytest.approx(3 / 8)
    assert met(positions[::-1], [6, 7], 2.0) == pytest.approx(3 / 8)
    assert met(positions, [0, 10], 2.0) == 0.0
    assert met(positions, [0, 2, 4, 6, 8, 10], 2.0) == 1.0
    assert met(positions, [0], 12.0) == 1.0  # none lies inside
