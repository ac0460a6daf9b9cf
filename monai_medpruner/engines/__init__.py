# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Loops over data sets: evaluation of a benchmark."""

from __future__ import annotations

from monai_medpruner.engines.benchmark_evaluator import BenchmarkEvaluator
from monai_medpruner.engines.item_groups import group_items, item_prompt
from monai_medpruner.engines.sweep_evaluator import SweepEvaluator
from monai_medpruner.engines.variant_evaluator import Variant, VariantEvaluator

__all__ = ["BenchmarkEvaluator", "SweepEvaluator", "Variant", "VariantEvaluator", "group_items", "item_prompt"]
