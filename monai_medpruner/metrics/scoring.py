# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Predictions of a run to numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.metrics.answer_rules import HEADLINE_RULE
from monai_medpruner.metrics.levels import MACRO, MICRO, LevelKey, Levels, interval
from monai_medpruner.metrics.measures import Measure, protocol_measures
from monai_medpruner.metrics.predictions import Prediction, as_predictions, read_predictions
from monai_medpruner.metrics.protocols import EvaluationProtocol, find_protocol

__all__ = ["DEFAULT_RESAMPLES", "finite_or_none", "run_facts", "score", "score_command", "write_json"]

DEFAULT_RESAMPLES = 1000


def score(
    predictions: Iterable[Mapping[str, Any]],
    protocol: str,
    wordnet: str | Path | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the predictions of one run.

    Scores are in percent. A failed or empty answer scores 0 and is counted; only a protocol whose source drops empty
    predictions does so, in its text metrics, and says how many.

    Args:
        predictions: lines as :meth:`~monai_medpruner.metrics.predictions.Prediction.from_line` reads them; their order
            has no say. An item with an answer choice is a closed question; any other is open or a report.
        protocol: one of :data:`~monai_medpruner.metrics.protocols.PROTOCOLS`.
        wordnet: as in :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.
        resamples: bootstrap draws of items, at least 1.
        seed: of these draws.

    Returns:
        A dictionary that JSON can hold, with None for a number that there is not:

        - ``accuracy`` by the headline rule over all closed items, ``unparsed_rate``, and ``majority_baseline``, the
          accuracy of always answering the most frequent letter;
        - what :func:`run_facts` gives;
        - ``micro``, ``macro``, ``types`` {type}, ``subtypes`` {type {subtype}}: per measure ``{"value", "low", "high",
          "items"}`` with the 95 % interval, and ``majority_baseline``;
        - ``protocol_scores``: the protocol's own measures at its own level, ``accuracy`` by its own rule;
        - ``per_item``: ``id``, ``type``, ``subtype``, ``failed`` and values of each.

    Raises:
        SettingsError: a line, the protocol or a setting is not as described.
    """
    plan = find_protocol(protocol)
    items = as_predictions(predictions)
    if any(item.reference_choice is None for item in items):
        plan = plan.with_wordnet(wordnet)
    measures, levels = protocol_measures(plan), Levels(items, plan.type_score)
    tables = [levels.table(measure) for measure in measures]
    report = _report(levels, measures, tables, levels.resampled(measures, tables, resamples, seed))
    return {
        "accuracy": report["micro"]["accuracy"]["value"],
        "unparsed_rate": report["micro"]["unparsed"]["value"],
        "majority_baseline": report["micro"]["majority_baseline"],
        **run_facts(plan, items),
        "bootstrap": {"resamples": resamples, "seed": seed, "confidence": 0.95},
        "protocol_scores": _protocol_scores(plan, report),
        **report,
        "per_item": _per_item(items, measures, tables),
    }


def run_facts(plan: EvaluationProtocol, items: Sequence[Prediction]) -> dict[str, Any]:
    """What a run's numbers are of.

    Returns:
        ``protocol``, its ``protocol_level`` and ``protocol_rule``, ``headline_rule``, ``unit``; and how many ``items``
        there are, ``closed`` and ``open`` ones, ``failed`` ones, ``empty`` answers among the others, and those
        ``dropped`` from the text metrics.
    """
    silent = [item for item in items if not plan.prepare_prediction(item.answer).strip()]
    closed = sum(item.reference_choice is not None for item in items)
    return {
        "protocol": plan.name,
        "protocol_level": plan.level,
        "protocol_rule": plan.answer_rule,
        "headline_rule": HEADLINE_RULE,
        "unit": "percent",
        "items": len(items),
        "closed": closed,
        "open": len(items) - closed,
        "failed": sum(item.failed for item in items),
        "empty": sum(not item.failed for item in silent),
        "dropped": sum(item.reference_choice is None for item in silent) if plan.drops_empty else 0,
    }


def _report(
    levels: Levels,
    measures: Sequence[Measure],
    tables: Sequence[np.ndarray],
    resampled: Sequence[Mapping[LevelKey, np.ndarray]],
) -> dict[str, Any]:
    """All measures at all levels, with intervals."""
    baselines = levels.majority_baselines()
    cells: dict[LevelKey, dict[str, Any]] = {
        key: {"majority_baseline": finite_or_none(value[0])} for key, value in baselines.items()
    }
    for measure, table, draws in zip(measures, tables, resampled, strict=True):
        counts = levels.counts(table)
        for key, value in levels.values(measure, table).items():
            low, high = map(finite_or_none, interval(draws[key]))
            cells[key][measure.name] = {
                "value": finite_or_none(value[0]),
                "low": low,
                "high": high,
                "items": counts[key],
            }
    subtypes: dict[str, dict[str, Any]] = {}
    for name, subtype in levels.subtypes:
        if subtype:
            subtypes.setdefault(name, {})[subtype] = cells["subtype", name, subtype]
    types = {name: cells["type", name, ""] for name in levels.types}
    return {"micro": cells[MICRO], "macro": cells[MACRO], "types": types, "subtypes": subtypes}


def _protocol_scores(plan: EvaluationProtocol, report: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol's own numbers: what its source would print."""

    def own(cell: Mapping[str, Any]) -> dict[str, Any]:
        accuracy = {"accuracy": cell[f"accuracy_{plan.answer_rule}"]}
        return accuracy | {scorer.name: cell[scorer.name] for scorer in plan.scorers}

    if plan.level == "types":
        return {name: own(cell) for name, cell in report["types"].items()}
    return own(report[plan.level])


def _per_item(
    items: Sequence[Prediction], measures: Sequence[Measure], tables: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    values = {measure.name: measure.values(table).tolist() for measure, table in zip(measures, tables, strict=True)}
    return [
        {"id": item.id, "type": item.type, "subtype": item.subtype, "failed": item.failed}
        | {name: column[number] for name, column in values.items() if not math.isnan(column[number])}
        for number, item in enumerate(items)
    ]


def finite_or_none(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def write_json(result: Mapping[str, Any], path: str | Path) -> None:
    """Write a result whole or not at all.

    Raises:
        OutputFolderError: the file cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, (json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise OutputFolderError(f"cannot write {path}: {error.strerror}") from error


def score_command(
    predictions: str,
    protocol: str,
    output: str | None = None,
    wordnet: str | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a file of predictions.

    Args:
        predictions: path of the JSON lines.
        protocol: one of :data:`~monai_medpruner.metrics.protocols.PROTOCOLS`.
        output: path of the JSON file to write, with the values of every item; None to write none.
        wordnet: folder that prepare_wordnet made; None for NLTK's own search path.
        resamples: bootstrap draws.
        seed: of these draws.

    Returns:
        What :func:`score` returns, without ``per_item``.
    """
    result = score(read_predictions(predictions), protocol, wordnet, resamples, seed)
    if output is not None:
        write_json(result, output)
    return {name: value for name, value in result.items() if name != "per_item"}
