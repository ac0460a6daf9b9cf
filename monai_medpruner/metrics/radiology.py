# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Model-based report metrics (GREEN, RaTEScore, RadGraph and others), by way of the RadEval package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from monai_medpruner.errors import PackageVersionError, SettingsError

__all__ = ["RadEvalScorer"]


class RadEvalScorer:
    """Hands reports to RadEval (MIT license, 2.x), which brings the models and downloads their weights.

    Args:
        metrics: RadEval's names, such as "green", "ratescore", "radgraph"; or a mapping of name -> settings.

    Raises:
        PackageVersionError: RadEval 2 is not installed.
        SettingsError: no metric is named.
    """

    def __init__(self, metrics: Sequence[str] | Mapping[str, Any]) -> None:
        if not metrics:
            raise SettingsError("name at least one metric of RadEval, such as 'green'")
        try:
            package = import_module("radeval")
        except ImportError as error:
            raise PackageVersionError(
                f"RadEval 2 could not be imported ({error}); install it with: pip install 'monai-medpruner[radeval]'"
            ) from error
        self._evaluator = package.RadEval(
            metrics=dict(metrics) if isinstance(metrics, Mapping) else list(metrics), per_sample=True
        )

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
        """Score reports.

        Args:
            predictions: B reports.
            references: B reports, in the same order.

        Returns:
            RadEval's name of a score -> B values, on RadEval's scales. Feed ``math.fsum(values) / B``.

        Raises:
            SettingsError: the numbers of reports differ.
        """
        if len(predictions) != len(references):
            raise SettingsError(f"{len(predictions)} predictions need as many references, got {len(references)}")
        scores = self._evaluator(refs=list(references), hyps=list(predictions))
        return {name: list(values) for name, values in scores.items()}
