# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Paired comparison of two runs on the same items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.answer_rules import ANSWER_RULES, answer_is_correct
from monai_medpruner.metrics.levels import Levels, interval
from monai_medpruner.metrics.measures import protocol_measures
from monai_medpruner.metrics.predictions import Prediction, as_predictions, read_predictions
from monai_medpruner.metrics.protocols import find_protocol
from monai_medpruner.metrics.scoring import DEFAULT_RESAMPLES, finite_or_none, run_facts, write_json

__all__ = ["compare", "compare_command", "mcnemar"]


def compare(
    first: Iterable[Mapping[str, Any]],
    second: Iterable[Mapping[str, Any]],
    protocol: str,
    wordnet: str | Path | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two runs on the same items.

    Args:
        first: lines of one run, as in :func:`~monai_medpruner.metrics.scoring.score`.
        second: lines of the other run.
        protocol: one of :data:`~monai_medpruner.metrics.protocols.PROTOCOLS`.
        wordnet: as in :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.
        resamples: number of bootstrap draws, at least 1; each draws the same items from both runs.
        seed: random seed of the draws.

    Returns:
        A JSON-serializable dictionary:

        - ``first``, ``second``: the result of :func:`~monai_medpruner.metrics.scoring.run_facts` for each run;
        - ``micro``, ``macro``, ``types`` {type}: per measure ``{"first", "second", "difference", "low", "high"}``;
          the difference is second minus first, in percentage points, with its 95 % confidence interval;
        - ``mcnemar``: per answer rule ``{"only_first", "only_second", "p_value"}``, see :func:`mcnemar`.

    Raises:
        SettingsError: the runs have different items, or a line, the protocol or an argument is invalid.
    """
    plan = find_protocol(protocol)
    runs = as_predictions(first), as_predictions(second)
    _refuse_different_items(*runs)
    if any(item.reference_choice is None for item in runs[0]):
        plan = plan.with_wordnet(wordnet)
    measures = protocol_measures(plan)
    levels = [Levels(items, plan.type_score) for items in runs]
    tables = [[one.table(measure) for measure in measures] for one in levels]
    # the same seed draws the same items: both runs hold the same items in the same order
    draws = [one.resampled(measures, rows, resamples, seed) for one, rows in zip(levels, tables, strict=True)]
    report: dict[str, Any] = {"micro": {}, "macro": {}, "types": {name: {} for name in levels[0].types}}
    for number, measure in enumerate(measures):
        values = [one.values(measure, rows[number]) for one, rows in zip(levels, tables, strict=True)]
        for key in values[0]:
            level, name, _ = key
            if level != "subtype":
                cell = report["types"][name] if level == "type" else report[level]
                low, high = interval(draws[1][number][key] - draws[0][number][key])
                numbers = (values[0][key][0], values[1][key][0], values[1][key][0] - values[0][key][0], low, high)
                names = ("first", "second", "difference", "low", "high")
                cell[measure.name] = dict(zip(names, map(finite_or_none, numbers), strict=True))
    return {
        "first": run_facts(plan, runs[0]),
        "second": run_facts(plan, runs[1]),
        "bootstrap": {"resamples": resamples, "seed": seed, "confidence": 0.95},
        **report,
        "mcnemar": {rule: _mcnemar_of_rule(rule, *runs) for rule in ANSWER_RULES},
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided test (1947) of whether the two kinds of discordant pairs are equally frequent.

    Args:
        only_first: number of items that only the first run answers correctly.
        only_second: number of items that only the second run answers correctly.

    Returns:
        The p-value: twice the smaller binomial tail at 1/2, at most 1; 1 if no pair is discordant.
    """
    pairs, term, tail = only_first + only_second, 1, 0
    for chosen in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (pairs - chosen) // (chosen + 1)
    return float(min(Fraction(1), Fraction(2 * tail, 2**pairs)))


def _mcnemar_of_rule(rule: str, first: Sequence[Prediction], second: Sequence[Prediction]) -> dict[str, Any]:
    only_first = only_second = 0
    for one, other in zip(first, second, strict=True):
        if one.reference_choice is not None:
            right, other_right = (
                answer_is_correct(item.answer, one.reference_choice, item.choices, rule) for item in (one, other)
            )
            only_first += right and not other_right
            only_second += other_right and not right
    return {"only_first": only_first, "only_second": only_second, "p_value": mcnemar(only_first, only_second)}


def _refuse_different_items(first: Sequence[Prediction], second: Sequence[Prediction]) -> None:
    ids = {item.id for item in first}, {item.id for item in second}
    if ids[0] != ids[1]:
        raise SettingsError(
            f"only runs on the same items can be compared: {len(ids[0] - ids[1])} id(s) are only in the first run, "
            f"{len(ids[1] - ids[0])} only in the second"
        )
    fields = ("reference", "reference_choice", "choices", "type", "subtype")
    pairs = list(zip(first, second, strict=True))
    different = [name for name in fields if any(getattr(one, name) != getattr(other, name) for one, other in pairs)]
    if different:
        raise SettingsError(f"items with the same id differ in {', '.join(different)}: the runs used different data")


def compare_command(
    first: str,
    second: str,
    protocol: str,
    output: str | None = None,
    wordnet: str | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two files of predictions.

    Args:
        first: path of the JSON lines of one run.
        second: path of the JSON lines of the other run.
        protocol: one of :data:`~monai_medpruner.metrics.protocols.PROTOCOLS`.
        output: path of the JSON file to write; None to write no file.
        wordnet: folder made by prepare_wordnet; None to use NLTK's search path.
        resamples: number of bootstrap draws.
        seed: random seed of the draws.

    Returns:
        The result of :func:`compare`.
    """
    result = compare(read_predictions(first), read_predictions(second), protocol, wordnet, resamples, seed)
    if output is not None:
        write_json(result, output)
    return result
