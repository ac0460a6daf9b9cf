# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Scores of a run compared with manual counts."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict

import numpy as np
import pytest

from monai_medpruner.errors import OutputFolderError, SettingsError
from monai_medpruner.metrics import BleuScorer, RougeScorer, read_predictions, score, score_command

CHOICES = {"A": "Spleen", "B": "Liver", "C": "Heart", "D": "Both lungs"}


def closed(id, answer, reference_choice, type="Organ", subtype=None, status="ok"):
    return {
        "id": id,
        "question": "Which organ?",
        "answer": answer,
        "reference": CHOICES[reference_choice],
        "choices": CHOICES,
        "reference_choice": reference_choice,
        "type": type,
        "subtype": subtype,
        "status": status,
    }


def opened(id, answer, reference, type="Location", subtype=None, status="ok"):
    return {
        "id": id,
        "question": "Where?",
        "answer": answer,
        "reference": reference,
        "choices": None,
        "reference_choice": None,
        "type": type,
        "subtype": subtype,
        "status": status,
    }


LINES = [
    closed("1", "The answer is B", "B"),
    closed("2", "B. Liver", "B"),
    closed("3", "Both lungs", "D"),
    closed("4", "b", "A"),
    closed("5", "I cannot tell", "B"),
    closed("6", "A or B", "A", "Plane"),
    closed("7", "A.", "A", "Plane"),
    closed("8", "B.", "B", status="OutOfMemoryError"),
    opened("9", "Right hilar region", "Right hilar region."),
    opened("10", "left lung", "left lung"),
    opened("11", "", "left lung"),
    opened("12", "left lung", "left lung", status="UnreadableVolumeError"),
]


def run(lines, protocol="meduni-vqa", **settings):
    settings.setdefault("resamples", 50)
    return score(lines, protocol, **settings)


def test_counts_and_accuracy():
    result = run(LINES)
    assert result["accuracy"] == pytest.approx(100 * 4 / 8)  # 1, 2, 3, 7
    assert result["unparsed_rate"] == pytest.approx(100 * 2 / 8)  # 5, 6; 8 failed and gave no answer
    assert result["majority_baseline"] == pytest.approx(100 * 4 / 8)  # B in 1, 2, 5, 8
    assert {name: result[name] for name in ("items", "closed", "open", "failed", "empty", "dropped")} == {
        "items": 12,
        "closed": 8,
        "open": 4,
        "failed": 2,
        "empty": 1,
        "dropped": 0,
    }
    micro = result["micro"]
    assert micro["accuracy_robust"]["value"] == result["accuracy"]
    assert micro["accuracy_m3d-substring"]["value"] == pytest.approx(100 * 2 / 8)  # 2, 7
    assert micro["accuracy_meduni-letter"]["value"] == pytest.approx(100 * 3 / 8)  # 2, 6, 7; "Both lungs" is b
    assert micro["accuracy"]["items"] == 8
    assert micro["bleu-1"]["items"] == 4


def test_types_and_macro():
    result = run(LINES)
    assert list(result["types"]) == ["Location", "Organ", "Plane"]
    assert result["types"]["Organ"]["accuracy"]["value"] == pytest.approx(100 * 3 / 6)
    assert result["types"]["Plane"]["accuracy"]["value"] == pytest.approx(50)
    assert result["types"]["Location"]["accuracy"] == {"value": None, "low": None, "high": None, "items": 0}
    assert result["types"]["Plane"]["majority_baseline"] == 100
    assert result["macro"]["accuracy"]["value"] == pytest.approx(50)
    assert result["macro"]["majority_baseline"] == pytest.approx((100 + 100 * 4 / 6) / 2)
    assert result["macro"]["bleu-1"]["value"] == result["types"]["Location"]["bleu-1"]["value"]
    assert result["subtypes"] == {}


def test_text_scores_count_failures_as_zero():
    result = run(LINES)
    expected = 100 * (2 / 3 + 1 + 0 + 0) / 4
    assert result["micro"]["bleu-1"]["value"] == pytest.approx(expected)
    assert result["micro"]["rouge-1"]["value"] == pytest.approx(100 * 2 / 4, abs=1e-5)
    by_id = {row["id"]: row for row in result["per_item"]}
    assert by_id["12"]["failed"]
    assert by_id["12"]["bleu-1"] == 0
    assert by_id["9"]["bleu-1"] == pytest.approx(200 / 3)
    assert by_id["3"]["accuracy"] == 100
    assert "accuracy" not in by_id["9"]
    assert "bleu-1" not in by_id["3"]


def test_empty_predictions_are_dropped_only_by_3drads_text_metrics():
    official, default = run(LINES, "3drad-official"), run(LINES, "m3d-official")
    assert official["dropped"] == 2  # the empty one and the failed one
    assert official["micro"]["rouge-1"] == pytest.approx({"value": 100, "low": 100, "high": 100, "items": 2})
    assert official["failed"] == 2
    assert official["accuracy"] == default["accuracy"]
    assert default["dropped"] == 0
    assert default["micro"]["rouge-1"]["value"] == pytest.approx(50)


def test_3drads_subtasks_have_equal_weight():
    lines = [
        opened("1", "4 mm", "4 mm", "3", "Size"),
        opened("2", "5 cm", "4 mm", "3", "Size"),
        opened("3", "6 cm long lesion", "6 cm", "3", "Size"),
        opened("4", "thin wall", "thin wall", "3", "Thickness"),
        opened("5", "a nodule", "a nodule", "1", "Pathological"),
        closed("6", "A.", "A", "4", "Atelectasis"),
        closed("7", "A.", "B", "4", "Atelectasis"),
        closed("8", "A.", "A", "4", "Emphysema"),
    ]
    result = run(lines, "3drad-official")
    size = BleuScorer(1, "13a", corpus=True)
    rows = [size.statistics(line["answer"], line["reference"]) for line in lines[:3]]
    assert result["subtypes"]["3"]["Size"]["bleu-1"]["value"] == pytest.approx(100 * size.aggregate(rows))
    assert result["subtypes"]["3"]["Size"]["bleu-1"]["value"] == pytest.approx(100 * 4 / 8)
    assert result["types"]["3"]["bleu-1"]["value"] == pytest.approx((50 + 100) / 2)
    assert result["types"]["4"]["accuracy"]["value"] == pytest.approx((50 + 100) / 2)
    assert result["macro"]["bleu-1"]["value"] == pytest.approx((75 + 100) / 2)
    assert result["micro"]["accuracy"]["value"] == pytest.approx(200 / 3)
    assert set(result["protocol_scores"]) == {"1", "3", "4"}
    assert result["protocol_scores"]["4"]["accuracy"] == result["types"]["4"]["accuracy_m3d-substring"]
    # the other protocols pool the items of a type
    assert run(lines)["types"]["4"]["accuracy"]["value"] == pytest.approx(200 / 3)


def test_protocol_scores_use_the_protocols_own_rule_and_level():
    result = run(LINES)
    assert result["protocol_scores"]["accuracy"] == result["macro"]["accuracy_meduni-letter"]
    assert set(result["protocol_scores"]) == {"accuracy", "bleu-1", "bleu-4", "rouge-1", "rouge-l", meteor(result)}
    report = run([opened("1", "Findings: a cyst.", "A cyst.")], "meduni-report")
    assert report["protocol_scores"]["bleu-1"] == report["micro"]["bleu-1"]
    assert report["micro"]["bleu-1"]["value"] == pytest.approx(100)
    assert report["accuracy"] is None
    assert report["majority_baseline"] is None


def meteor(result):
    (name,) = {name for name in result["micro"] if name.startswith("meteor")}
    return name


def test_order_of_lines_does_not_matter():
    lines = LINES[:]
    random.Random(3).shuffle(lines)
    assert json.dumps(run(lines)) == json.dumps(run(LINES))
    assert json.dumps(run(LINES, seed=1)) != json.dumps(run(LINES))


def plain_bootstrap(values, types, resamples, seed):
    """Percentile intervals of the pooled mean and of the mean over types, drawn as documented."""
    generator, pooled, macro = np.random.default_rng(seed), [], []
    sizes = [min(64, resamples - start) for start in range(0, resamples, 64)]
    for draw in np.concatenate([generator.integers(0, len(values), (size, len(values))) for size in sizes]):
        pooled.append(np.mean([values[i] for i in draw]))
        groups = defaultdict(list)
        for i in draw:
            groups[types[i]].append(values[i])
        macro.append(np.mean([np.mean(group) for group in groups.values()]))
    return [np.percentile(x, [2.5, 97.5]) for x in (pooled, macro)]


def test_intervals_match_a_plain_bootstrap():
    generator = random.Random(5)
    lines = [closed(f"{n:03d}", generator.choice("AB"), "A", generator.choice("xyz")) for n in range(60)]
    result = run(lines, resamples=150, seed=7)
    values = [100.0 * (line["answer"] == "A") for line in lines]
    pooled, macro = plain_bootstrap(values, [line["type"] for line in lines], 150, 7)
    for level, expected in (("micro", pooled), ("macro", macro)):
        entry = result[level]["accuracy"]
        assert [entry["low"], entry["high"]] == pytest.approx(list(expected))
        assert entry["low"] < entry["value"] < entry["high"]


def test_intervals_cover_the_truth():
    """About 95 of 100 intervals should contain the true rate of 70 %; fewer than 85 would indicate an error."""
    generator, covered = random.Random(11), 0
    for _ in range(100):
        lines = [closed(str(n), "A" if generator.random() < 0.7 else "B", "A") for n in range(80)]
        entry = run(lines, resamples=200)["micro"]["accuracy"]
        covered += entry["low"] <= 70 <= entry["high"]
    assert 85 <= covered <= 100


def test_corpus_intervals_resample_statistics():
    lines = [opened(str(n), "a b c d"[: 1 + 2 * (n % 4)], "a b c d", "1", "s") for n in range(20)]
    entry = run(lines, "3drad-official", resamples=200)["micro"]["bleu-1"]
    assert entry["low"] < entry["value"] < entry["high"]


def test_choices_as_list_and_absent_choices():
    line = {**closed("1", "Liver", "B"), "choices": ["Spleen", "Liver", "NA", "-"]}
    assert run([line])["accuracy"] == 100
    assert run([{**line, "answer": "D"}])["unparsed_rate"] == 100
    assert run([{**line, "reference_choice": "b"}])["accuracy"] == 100


def test_minimal_lines():
    result = run([{"id": 1, "answer": None, "reference": 4.5, "type": 3}])
    assert result["types"]["3"]["bleu-1"]["value"] == 0
    assert result["empty"] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no predictions"),
        ([{"id": "1", "answer": "a"}], "has no reference; its fields are answer, id"),
        ([{"answer": "a", "reference": "b"}], "has no id"),
        ([LINES[0], LINES[0]], "1 prediction"),
        ([{**LINES[0], "choices": "AB"}], "a list or a mapping of letters"),
    ],
)
def test_invalid_lines_are_rejected(lines, message):
    with pytest.raises(SettingsError, match=message):
        run(lines)


def test_invalid_settings_are_rejected():
    with pytest.raises(SettingsError, match="unknown protocol 'bleu'"):
        run(LINES, "bleu")
    with pytest.raises(SettingsError, match="resamples must be at least 1, got 0"):
        run(LINES, resamples=0)


def test_errors_contain_no_patient_text():
    secret = "John Doe has a cyst"
    for lines in ([{"id": secret}], [{"id": "1", "answer": secret, "reference": secret}] * 2):
        with pytest.raises(SettingsError) as caught:
            run(lines)
        assert "Doe" not in str(caught.value)


@pytest.fixture
def predictions_file(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES) + "\n", encoding="utf-8")
    return path


def test_command_writes_the_result_and_returns_the_summary(predictions_file, tmp_path):
    output = tmp_path / "new" / "metrics.json"
    summary = score_command(str(predictions_file), "meduni-vqa", str(output), resamples=50)
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(run(LINES)))
    assert len(written.pop("per_item")) == 12
    assert written == json.loads(json.dumps(summary))
    assert not list(output.parent.glob("*.part"))
    assert score_command(str(predictions_file), "meduni-vqa", resamples=50) == summary


def test_files_that_cannot_be_read_or_written(predictions_file, tmp_path):
    with pytest.raises(SettingsError, match="cannot read predictions"):
        read_predictions(tmp_path / "absent.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": 1, "reference": "a"}\n{"id": 2, "refe')
    with pytest.raises(SettingsError, match=r"line 2 of .*broken.jsonl is not JSON; if the run was interrupted"):
        read_predictions(broken)
    broken.write_text("[1]\n")
    with pytest.raises(SettingsError, match=r"line 1 of .* is not a JSON object"):
        read_predictions(broken)
    (tmp_path / "file").touch()
    with pytest.raises(OutputFolderError, match="cannot write"):
        score_command(str(predictions_file), "meduni-vqa", str(tmp_path / "file" / "metrics.json"), resamples=1)


def test_matches_the_cumulative_metric():
    lines = [opened(str(n), "the liver " * n, "the large liver") for n in range(1, 8)]
    scorer = RougeScorer("1", "rouge_score")
    rows = [scorer.statistics(line["answer"].strip(), line["reference"]) for line in lines]
    value = run(lines, "m3d-official")["micro"]["rouge-1"]["value"]
    assert math.isclose(value, 100 * scorer.aggregate(rows), rel_tol=1e-15)
