# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Scoring of the predictions of a run."""

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

    Scores are in percent. Failed and empty answers count and score 0. Only a protocol whose source drops empty
    predictions excludes them, in its text metrics, and the result states how many.

    Args:
        predictions: lines as :meth:`~monai_medpruner.metrics.predictions.Prediction.from_line` reads them, in any
            order. An item with a ``reference_choice`` is a closed question; other items are open questions or reports.
        protocol: one of :data:`~monai_medpruner.metrics.protocols.PROTOCOLS`.
        wordnet: as in :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.
        resamples: number of bootstrap draws of items, at least 1.
        seed: random seed of the draws.

    Returns:
        A JSON-serializable dictionary, with None for undefined values:

        - ``accuracy`` under the headline rule over all closed items, ``unparsed_rate``, and ``majority_baseline``, the
          accuracy of always answering with the most frequent letter;
        - the result of :func:`run_facts`;
        - ``micro``, ``macro``, ``types`` {type}, ``subtypes`` {type {subtype}}: per measure ``{"value", "low", "high",
          "items"}`` with the 95 % interval, and ``majority_baseline``;
        - ``protocol_scores``: the protocol's own measures at its own level, ``accuracy`` under its own rule;
        - ``per_item``: ``id``, ``type``, ``subtype``, ``failed`` and the values of each item.

    Raises:
        SettingsError: a line, the protocol or an argument is invalid.
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
    """Describe the protocol and the items of a run.

    Returns:
        ``protocol``, its ``protocol_level`` and ``protocol_rule``, ``headline_rule`` and ``unit``; and the numbers of
        ``items``, of ``closed``, ``open`` and ``failed`` items, of ``truncated`` answers, which ended at their length
        limit, of ``empty`` answers to items that did not fail, and of items ``dropped`` from the text metrics.
    """
    empty = [item for item in items if not plan.prepare_prediction(item.answer).strip()]
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
        "truncated": sum(item.truncated for item in items),
        "empty": sum(not item.failed for item in empty),
        "dropped": sum(item.reference_choice is None for item in empty) if plan.drops_empty else 0,
    }


def _report(
    levels: Levels,
    measures: Sequence[Measure],
    tables: Sequence[np.ndarray],
    resampled: Sequence[Mapping[LevelKey, np.ndarray]],
) -> dict[str, Any]:
    """All measures at all levels, with confidence intervals."""
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
    """The numbers that the source of the protocol would report."""

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
    """Convert a value to float, or to None if it is NaN, which JSON cannot represent."""
    return None if math.isnan(value) else float(value)


def write_json(result: Mapping[str, Any], path: str | Path) -> None:
    """Write a result atomically.

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
        predictions: path of the JSON lines file.
        protocol: one of :data:`~monai_medpruner.metrics.protocols.PROTOCOLS`.
        output: path of the JSON file to write, including per-item values; None to write no file.
        wordnet: folder made by prepare_wordnet; None to use NLTK's search path.
        resamples: number of bootstrap draws.
        seed: random seed of the draws.

    Returns:
        The result of :func:`score`, without ``per_item``.
    """
    result = score(read_predictions(predictions), protocol, wordnet, resamples, seed)
    if output is not None:
        write_json(result, output)
    return {name: value for name, value in result.items() if name != "per_item"}
