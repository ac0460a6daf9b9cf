# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Time, memory and operations of pruning, measured in one run against no pruning."""

from __future__ import annotations

from monai_medpruner.benchmark.configurations import (
    UNPRUNED,
    Configuration,
    Pipeline,
    configuration_of_text,
    product_of,
)
from monai_medpruner.benchmark.measure import BENCHMARK_STAGES, MeasuredRun, machine, measure, run_once
from monai_medpruner.benchmark.models import BenchmarkModel, benchmark_model, model_names
from monai_medpruner.benchmark.report import benchmark_plot, benchmark_table, machine_text, model_text

__all__ = [
    "BENCHMARK_STAGES",
    "UNPRUNED",
    "BenchmarkModel",
    "Configuration",
    "MeasuredRun",
    "Pipeline",
    "benchmark_model",
    "benchmark_plot",
    "benchmark_table",
    "configuration_of_text",
    "machine",
    "machine_text",
    "measure",
    "model_names",
    "model_text",
    "product_of",
    "run_once",
]
