# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The comparison of slices at equal numbers: its counting by hand."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from monai_medpruner.transforms.slice_rules import SliceStack


@pytest.fixture
def benchmark(repository, monkeypatch):
    """Return a function: name of a benchmark -> its module."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module


def stack(depth, spacing=2.0):
    voxels = torch.arange(depth, dtype=torch.float32).expand(1, 4, 4, depth) / depth
    return SliceStack(voxels, 3, tuple(spacing * place for place in range(depth)), (1.0, 1.0))


@pytest.fixture
def cases(benchmark):
    case = benchmark("slices").Case
    return [
        case(stack(10), (frozenset({0, 1}), frozenset({8})), frozenset({4, 5}), 10.0),
        case(stack(10), (frozenset({3}),), frozenset({9}), 20.0),
        case(stack(10), (), None),
    ]


def test_slices_that_show_each_label(benchmark):
    labels = torch.zeros(2, 2, 4)
    labels[0, 0, 1:3] = 7
    labels[1, 1, 2] = 2
    assert benchmark("slices").shown_in(labels) == {2: {2}, 7: {1, 2}}


def test_every_second_slice(benchmark, cases):
    fewer = [benchmark("slices").thinned(one, 2) for one in cases]
    assert fewer[0].organs == ({0}, {4})
    assert fewer[0].lesion == {2}
    assert (fewer[1].organs, fewer[1].lesion) == ((), None)  # slices 3 and 9 are gone
    assert fewer[0].stack.positions_mm == (0.0, 4.0, 8.0, 12.0, 16.0)
    assert fewer[0].stack.voxels[0, 0, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_what_kept_slices_meet(benchmark, cases):
    found = benchmark("slices").measured(cases, [[0, 4], [3, 6], [0, 9]])
    assert found["kept"] == 2
    assert found["lesions_small"] == [1, 1]
    assert found["lesions_large"] == [0, 1]
    assert found["organs_lost"] == [1, 3]
    assert found["gap_mm"] == pytest.approx((10 + 6 + 18) / 3, abs=0.01)


def test_paired_difference(benchmark):
    difference = benchmark("slices").difference
    ours, other = np.array([1.0, 1, 1, 0]), np.array([0.0, 1, 0, 0])
    mean, low, high = difference(ours, other)
    assert mean == 50
    assert low == 0
    assert high == 100
    assert difference(ours, ours) == [0, 0, 0]
    assert difference(ours[:0], other[:0]) is None


def test_rows_have_as_many_slices_for_every_rule(benchmark, cases):
    rows = benchmark("slices").rows_of(cases, {"step": 1})
    assert {row["number"] for row in rows} == {6}
    assert all(0 < row["kept"] <= 6 for row in rows)
    even = next(row for row in rows if row["rule"] == "evenly_spaced")
    assert even["kept"] == 6
    for row in benchmark("slices").gamma_rows(cases, {}):
        assert row["filter"]["kept"] == row["even"]["kept"]


def test_the_fewest_slices_that_suffice(benchmark):
    rows = [{"rule": "anchor", "number": number, "met": met} for number, met in ((6, 1), (12, 0), (24, 1), (48, 1))]
    enough = benchmark("slices_page").enough
    assert enough(rows, "anchor", lambda row: row["met"])["number"] == 24  # 6 was luck
    assert enough(rows, "anchor", lambda row: row["number"] > 48) is None


def test_the_verdict_follows_the_figures(benchmark):
    def found(gain):
        row = {"guard_mm": None, "even_minus_filter": [1, -1, 3]}
        rows = [{"rule": "evenly_spaced", "against_filter": [gain, gain - 1, gain + 1]}]
        return {"sets": [{"kind": "phantom", "rows": rows, "gammas": [row, {**row, "guard_mm": 25.0}]}]}

    verdict = benchmark("slices_page").verdict
    assert "evenly spaced slices meet more lesions than the filter.**" in verdict(found(5))
    assert "more in 1 and fewer in 0 of 1 comparisons, +5 points on average (95 % interval above 0 in 1" in verdict(
        found(5)
    )
    assert "do not meet more lesions than the filter.**" in verdict(found(-5))
