# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The cumulative metrics in MONAI: buffers, ignite engine, per-item details."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics import (
    AnswerAccuracyMetric,
    BleuMetric,
    BleuScorer,
    MeteorScorer,
    RougeMetric,
    RougeScorer,
    TextScorerMetric,
)

PREDICTIONS = ["the liver is large", "no lesion", None, "both kidneys"]
REFERENCES = ["the liver is very large", "no lesions", "a cyst", "both kidneys"]
CHOICES = {"A": "Spleen", "B": "Liver", "C": "Heart", "D": "Both lungs"}
QUESTIONS = [{"answer_choice": letter, "choices": CHOICES} for letter in "BDAC"]
METRICS = [
    (BleuMetric(2, lowercase=True), BleuScorer(2, lowercase=True), torch.int64),
    (BleuMetric(4, "13a", corpus=True), BleuScorer(4, "13a", corpus=True), torch.int64),
    (RougeMetric("l", "rouge"), RougeScorer("l", "rouge"), torch.int64),
    (TextScorerMetric(MeteorScorer()), MeteorScorer(), torch.float64),
]


@pytest.mark.parametrize(("metric", "scorer", "dtype"), METRICS)
def test_one_tensor_of_statistics(metric, scorer, dtype):
    metric.reset()
    assert isinstance(metric, CumulativeIterationMetric)
    batch = metric(PREDICTIONS[:3], REFERENCES[:3])
    metric(PREDICTIONS[3:], REFERENCES[3:])
    metric([], [])
    rows = [scorer.statistics(p or "", r) for p, r in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert batch.shape == (3, scorer.width)
    assert batch.dtype == metric.get_buffer().dtype == dtype
    assert metric.get_buffer().tolist() == rows
    value = metric.aggregate()
    assert value.dtype == torch.float64
    assert value.item() == scorer.aggregate(rows)
    metric.reset()
    assert math.isnan(metric.aggregate().item())
    metric(PREDICTIONS[3:], REFERENCES[3:])
    assert metric.aggregate().item() == scorer.aggregate(rows[3:])


def test_accuracy():
    metric = AnswerAccuracyMetric()
    rows = metric(["The answer is B", "Both lungs", None, "A or C"], QUESTIONS)
    assert rows.tolist() == [[1], [1], [0], [0]]
    assert metric.aggregate().item() == 0.5
    letter = AnswerAccuracyMetric("meduni-letter")
    assert letter(["The answer is B", "Both lungs", "a", "c"], QUESTIONS).tolist() == [[0], [0], [1], [1]]
    assert math.isnan(AnswerAccuracyMetric().aggregate().item())


@pytest.mark.parametrize("items", [1, 3])
def test_inside_an_evaluator(items):
    """With one and with several items per batch, all values and rows are present at the end."""
    batches = [
        [
            {"pred": p, "reference": r, "question": q}
            for p, r, q in list(zip(PREDICTIONS, REFERENCES, QUESTIONS, strict=True))[start : start + items]
        ]
        for start in range(0, 4, items)
    ]
    engine = Engine(lambda engine, batch: batch)
    for name, metric in {"bleu": BleuMetric(1, smoothing="method1"), "corpus": BleuMetric(1, corpus=True)}.items():
        IgniteMetricHandler(metric, output_transform=from_engine(["pred", "reference"])).attach(engine, name)
    accuracy = IgniteMetricHandler(AnswerAccuracyMetric(), output_transform=from_engine(["pred", "question"]))
    accuracy.attach(engine, "accuracy")
    for _ in range(2):
        engine.run(batches)
        for name, scorer in {"bleu": BleuScorer(1), "corpus": BleuScorer(1, corpus=True)}.items():
            rows = [scorer.statistics(p or "", r) for p, r in zip(PREDICTIONS, REFERENCES, strict=True)]
            assert engine.state.metrics[name] == scorer.aggregate(rows)
            assert engine.state.metric_details[name].tolist() == rows
        assert engine.state.metrics["accuracy"] == 0.25  # the liver
        assert engine.state.metric_details["accuracy"].shape == (4, 1)


def test_invalid_input_is_rejected():
    with pytest.raises(SettingsError, match=r"as many references as predictions \(2\), got 1"):
        BleuMetric()(["a", "b"], ["a"])
    with pytest.raises(SettingsError, match="got 0"):
        BleuMetric()(["a"])
    with pytest.raises(SettingsError, match=r"as many questions as predictions \(1\), got 0"):
        AnswerAccuracyMetric()(["a"], [])
    with pytest.raises(SettingsError, match="lists of texts"):
        BleuMetric()(torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(SettingsError, match="m3d-substring"):
        AnswerAccuracyMetric("exact")
