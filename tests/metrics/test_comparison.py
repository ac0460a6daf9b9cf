# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Paired comparison of two runs."""

from __future__ import annotations

import json
import math
import random

import pytest

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics import compare, compare_command, mcnemar

CHOICES = {"A": "Spleen", "B": "Liver"}


def lines(answers, **changes):
    """Items 0 to n - 1, each with A as the correct choice."""
    return [
        {
            "id": str(n),
            "answer": answer,
            "reference": "Spleen",
            "reference_choice": "A",
            "choices": CHOICES,
            "type": "xy"[n % 2],
            "status": "ok",
        }
        | changes
        for n, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (0, 6, 2 / 64),
        (1, 9, 2 * (1 + 10) / 1024),
        (9, 1, 2 * (1 + 10) / 1024),
        (3, 12, 2 * (1 + 15 + 105 + 455) / 2**15),
        (400, 600, 2 * sum(math.comb(1000, k) for k in range(401)) / 2**1000),
    ],
)
def test_mcnemar_is_the_binomial_tail(only_first, only_second, expected):
    assert mcnemar(only_first, only_second) == pytest.approx(min(1, expected), rel=1e-12)


def test_mcnemar_of_many_pairs_is_finite():
    assert 0 <= mcnemar(1000, 4000) < 1e-300
    assert mcnemar(5000, 5000) == 1


def test_differences():
    result = compare(lines("AAAABBBB"), lines("ABAAAAAB"), "meduni-vqa", resamples=200)
    assert result["mcnemar"]["robust"] == {"only_first": 1, "only_second": 3, "p_value": pytest.approx(0.625)}
    accuracy = result["micro"]["accuracy"]
    assert (accuracy["first"], accuracy["second"], accuracy["difference"]) == (50, 75, 25)
    assert accuracy["low"] < 25 < accuracy["high"]
    assert result["types"]["x"]["accuracy"]["difference"] == 50
    assert result["types"]["y"]["accuracy"]["difference"] == 0
    assert result["macro"]["accuracy"]["difference"] == 25
    assert result["first"]["items"] == 8
    assert result["mcnemar"]["m3d-substring"] == {"only_first": 0, "only_second": 0, "p_value": 1}


def test_pairs_are_drawn_together():
    """If the second run is wrong only on items where the first is, the paired interval is never negative."""
    generator = random.Random(2)
    first = [generator.choice("AB") for _ in range(80)]
    second = ["A" if n % 4 == 0 else answer for n, answer in enumerate(first)]
    entry = compare(lines(first), lines(second), "meduni-vqa", resamples=300)["micro"]["accuracy"]
    assert entry["low"] >= 0
    assert entry["high"] < 30
    same = compare(lines(first), lines(first), "meduni-vqa", resamples=50)["micro"]["accuracy"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)


def test_swapping_the_runs_swaps_the_signs():
    first, second = lines("AABBABAB"), lines("ABBBAAAA")
    there, back = (compare(*pair, "meduni-vqa", resamples=100) for pair in ((first, second), (second, first)))
    entry, other = there["micro"]["accuracy"], back["micro"]["accuracy"]
    assert entry["difference"] == -other["difference"]
    assert (entry["low"], entry["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert there["mcnemar"]["robust"]["p_value"] == back["mcnemar"]["robust"]["p_value"]
    assert there["mcnemar"]["robust"]["only_first"] == back["mcnemar"]["robust"]["only_second"]


def test_order_does_not_matter_and_failures_count():
    first, second = lines("AAAA"), lines("AAAA")
    second[1]["status"] = "UnreadableVolumeError"
    result = compare(first[::-1], second, "meduni-vqa", resamples=50)
    assert result == compare(first, second[::-1], "meduni-vqa", resamples=50)
    assert result["second"]["failed"] == 1
    assert result["micro"]["accuracy"]["difference"] == -25


def test_text_metrics():
    first, second = (
        lines(answers, reference_choice=None, choices=None, reference="left lung")
        for answers in (["left lung", "lung"], ["left lung", "left lung"])
    )
    entry = compare(first, second, "m3d-official", resamples=50)["micro"]["rouge-1"]
    assert entry["first"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert entry["difference"] == pytest.approx(100 / 6)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lines("AAA"), r"1 id\(s\) are only in the first run, 0 only in the second"),
        ([*lines("AAA"), {**lines("A")[0], "id": "9"}], r"1 id\(s\) .* 1 only in the second"),
        (lines("AAAA", reference="Heart"), "differ in reference"),
        (lines("AAAA", reference_choice="B"), "differ in reference_choice"),
        (lines("AAAA", choices={"A": "Liver", "B": "Spleen"}), "differ in choices"),
        (lines("AAAA", type="x"), "differ in type"),
    ],
)
def test_different_items_are_refused(second, message):
    with pytest.raises(SettingsError, match=message):
        compare(lines("AAAA"), second, "meduni-vqa", resamples=10)


def test_command(tmp_path):
    paths = []
    for name, answers in (("a", "AABB"), ("b", "AAAB")):
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("\n".join(map(json.dumps, lines(answers))))
    result = compare_command(*map(str, paths), "meduni-vqa", str(tmp_path / "out.json"), resamples=20)
    assert result == compare(lines("AABB"), lines("AAAB"), "meduni-vqa", resamples=20)
    assert json.loads((tmp_path / "out.json").read_text()) == result
