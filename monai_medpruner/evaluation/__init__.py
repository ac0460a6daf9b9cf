# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Evaluation on the questions of a data set."""

from __future__ import annotations

from monai_medpruner.evaluation.benchmark_evaluator import BenchmarkEvaluator
from monai_medpruner.evaluation.item_groups import group_items, item_prompt
from monai_medpruner.evaluation.prediction_folder import PredictionFolder
from monai_medpruner.evaluation.variants import Variant, sweep_variants
from monai_medpruner.evaluation.volume_evaluator import FailedVolume, VolumeEvaluator

__all__ = [
    "BenchmarkEvaluator",
    "FailedVolume",
    "PredictionFolder",
    "Variant",
    "VolumeEvaluator",
    "group_items",
    "item_prompt",
    "sweep_variants",
]
