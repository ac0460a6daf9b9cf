# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark of findings: scores of hand-made answers, the ideal reader, and a toy run from training to the file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from monai_medpruner.training import FindingsVolume
from monai_medpruner.training.findings_answers import EncodedFindings

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TOY = {"steps": 1, "volumes": 2, "validation_volumes": 2, "phrases_epochs": 1, "answers_epochs": 1}
TOY |= {"slices": 2, "asked_volumes": 1, "answers_pool": 2}


@pytest.fixture
def findings(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("findings")


def line(**right):
    """The line of a volume, with the answers to its questions by selection."""
    tokens = {"unpruned": [100, 100], "oracle": [5, 100], "random": [5, 100], "blind": [1, 100]}
    return {
        "tokens": tokens,
        "right": {name: dict(zip(("count", "larger"), one, strict=False)) for name, one in right.items()},
    }


def volume_with(number):
    """A volume with two tokens and its number everywhere."""
    return FindingsVolume(number, np.ones((1, 1, 2), np.float32), [], "", {"count": number})


def encoded_as(volume):
    """What the encoder makes of it: its slices themselves."""
    return EncodedFindings(volume.slices, volume)


def test_scores_of_hand_made_answers(findings):
    lines = [
        line(unpruned=[True, True], oracle=[True, False], random=[False, False], blind=[False, True]),
        line(unpruned=[True], oracle=[True], random=[True], blind=[False]),
    ]
    result = findings.scores(lines, [{}, {}])
    assert result["questions"] == 3
    assert result["accuracy"]["unpruned"]["all"] == {"mean": 100.0, "low": 100.0, "high": 100.0}
    assert result["accuracy"]["oracle"]["all"]["mean"] == 66.67
    assert result["accuracy"]["oracle"]["count"] == 100.0
    assert result["accuracy"]["oracle"]["larger"] == 0.0
    assert result["accuracy"]["random"]["tokens_kept_percent"] == 5.0
    assert result["oracle_minus_unpruned"]["mean"] == -33.33
    # draws of volumes: the first alone, both, or the second alone, which never splits a volume's questions
    assert (result["oracle_minus_unpruned"]["low"], result["oracle_minus_unpruned"]["high"]) == (-50.0, 0.0)


def test_intervals_are_wider_where_questions_of_a_volume_agree(findings):
    values = np.random.default_rng(0).uniform(size=400) < 0.5
    apart = findings.interval([[float(value)] for value in values])
    agreeing = findings.interval([[float(value)] * 10 for value in values[:40]])
    assert agreeing["high"] - agreeing["low"] > 2 * (apart["high"] - apart["low"])


def test_ideal_reader_needs_the_tokens_of_findings(findings):
    majority, lines = findings.ideal_reading(11, 24)
    result = findings.scores(lines, [dict.fromkeys(line["right"]["unpruned"], "Yes") for line in lines])
    assert result["accuracy"]["unpruned"]["all"]["mean"] == 100
    assert result["accuracy"]["unpruned"]["presence"] == {"sensitivity": 100}
    assert result["oracle_minus_unpruned"]["mean"] >= -2
    assert result["oracle_minus_random"]["low"] >= 10
    assert result["accuracy"]["blind"]["all"]["mean"] == pytest.approx(majority["all"], abs=0.1)
    assert all(line["tokens"]["oracle"] == line["tokens"]["random"] for line in lines)


def test_comparison_of_hand_made_lines(findings):
    module = importlib.import_module("findings_comparison")

    def compared(seed, attention, random, kept):
        right = {"received attention": attention, "random": random}
        shared = {"share": 0.05, "sizes": {"side, hyperdense": 9.0}, "diameters": [9.0, 16.0]}
        places = {"tokens": {name: [5, 100] for name in right}, "slices": {name: [4, 5] for name in right}}
        return {
            "seed": seed,
            **shared,
            **places,
            "right": right,
            "kept": {"received attention": [True, True], "random": kept},
        }

    yes, no = {"side, hyperdense": True, "count": True}, {"side, hyperdense": False, "count": False}
    mixed = {"side, hyperdense": False, "count": True}
    lines = [compared(1, yes, mixed, [False, True]), compared(2, yes, no, [True, False])]
    touches = {1: [False, True], 2: [True, False]}
    result = module.comparison_scores(lines, {1: yes, 2: mixed}, {1: {}, 2: {}}, touches, findings.interval)
    attention, random = result["0.05"]["received attention"], result["0.05"]["random"]
    assert attention["all"]["mean"] == 100
    assert random["all"]["mean"] == 25
    assert random["by_size"] == {"8 to 10 mm": 0}
    assert random["by_kind"] == {"count": 50, "side, hyperdense": 0}
    assert random["findings_that_keep_a_token_percent"] == {"14 to 20 mm": 50, "8 to 10 mm": 50}
    assert random["large_findings_that_keep_a_token_percent"] == {"at the skull": 100, "away from the skull": 0}
    assert random["slices_kept_percent"] == 80
    assert random["minus unpruned"]["mean"] == -50
    # volumes lose 1 of 2 and 2 of 2 questions
    assert random["minus received attention"] == {"mean": -75.0, "low": -100.0, "high": -50.0}


def test_presence_is_split_by_what_is_there(findings):
    module = importlib.import_module("findings_comparison")
    hyper, hypo = "presence, hyperdense", "presence, hypodense"
    pairs = [
        ({hyper: True, hypo: False, "count": False}, {hyper: "Yes", hypo: "Yes", "count": "Two"}),
        ({hyper: True, hypo: True}, {hyper: "No", hypo: "Yes"}),
    ]
    assert module.presence(pairs) == {"sensitivity": 66.7, "specificity": 100}


def test_shuffled_shows_another_volume(findings, tmp_path, monkeypatch):
    """The questions are those of the volume, the tokens those of the one before; what is known is not asked again."""
    asked = []

    def right(answering, encoded, keep):
        asked.append((encoded.rows, encoded.volume.answers, keep.all()))
        return {"count": True}

    monkeypatch.setattr(findings, "encode_findings", lambda network, volumes: [encoded_as(one) for one in volumes])
    monkeypatch.setattr(findings, "exact_answers", right)
    volumes = [volume_with(number) for number in range(2)]
    file = tmp_path / "asked.jsonl"
    monkeypatch.setattr(findings, "ASKED", ("unpruned",))
    findings.ask(None, None, 5, volumes, file)
    assert asked == [(0, {"count": 0}, True), (1, {"count": 1}, True)]
    monkeypatch.setattr(findings, "ASKED", ("unpruned", "shuffled"))
    lines = findings.ask(None, None, 5, volumes, file)
    assert asked[2:] == [(1, {"count": 0}, True), (0, {"count": 1}, True)]
    assert [list(line["right"]) for line in lines] == [["unpruned", "shuffled"]] * 2


def test_contrast_to_noise_is_that_of_the_settings(findings):
    result = findings.contrast_to_noise(5, 6)
    assert sum(one["findings"] for one in result.values()) >= 4
    for group, one in result.items():
        if not group.endswith("4 to 8 mm"):  # the kernel takes contrast from smaller ones
            low, high = (25, 52) if group.startswith("hyperdense") else (13, 28)
            assert low < one["contrast_hu"] < high
            assert one["ratio"] >= one["ratio_tenth_percentile"] > 0


def test_toy_run_resumes_and_writes_its_file(findings, tmp_path, monkeypatch):
    monkeypatch.setattr("monai_medpruner.training.findings_volumes._VOLUMES_PER_FILE", 2)
    out = tmp_path / "findings.json"
    arguments = ["--families", "qwen3_vl", "--count", "2", "--work", str(tmp_path / "work"), "--out", str(out)]
    arguments += [
        "--shares",
        "0.05",
        "--methods",
        "received attention",
        "random",
        "cdpruner",
    ]
    arguments += [part for name, value in TOY.items() for part in (f"--{name}", str(value))]
    findings.main(arguments)
    first = json.loads(out.read_text())
    (own,) = first["families"].values()
    assert [one["stage"] for one in own["curves"]] == ["phrases", "answers"]
    assert set(own["curves"][-1]) >= {"loss", "unpruned", "oracle", "random"}
    compared = own["comparison"]["0.05"]
    assert list(compared) == ["received attention", "random", "cdpruner"]
    assert all(4 < one["tokens_kept_percent"] <= 5 for one in compared.values())
    assert own["questions"] == first["ideal_reader"]["questions"]
    # a further method is asked about alone, and stands in the results beside those that were asked about before
    further = importlib.import_module("findings_comparison")
    asked = []
    original = further.compare_volume
    monkeypatch.setattr(further, "compare_volume", lambda *parts: asked.append(parts[-1]) or original(*parts))
    arguments[arguments.index("cdpruner")] = "rare tokens"
    findings.main(arguments)
    assert asked == [["rare tokens"]] * 2
    second = json.loads(out.read_text())
    compared = second["families"]["qwen3_vl"]["comparison"]["0.05"]
    assert list(compared) == ["received attention", "random", "rare tokens", "cdpruner"]
    # what is trained and asked is not trained and asked again
    monkeypatch.setattr("findings_training.SupervisedTrainer", None)
    monkeypatch.setattr(findings, "exact_answers", None)
    monkeypatch.setattr("findings_comparison.compare_volume", None)
    findings.main(arguments)
    assert json.loads(out.read_text()) == second
