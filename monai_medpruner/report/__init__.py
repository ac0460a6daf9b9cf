# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Results as tables and figures."""

from __future__ import annotations

from monai_medpruner.report.answer_table import answer_table, kept_text, seconds_text
from monai_medpruner.report.pruning_figure import pruning_figure
from monai_medpruner.report.sweep_report import sweep_table, write_sweep

__all__ = [
    "answer_table",
    "kept_text",
    "pruning_figure",
    "seconds_text",
    "sweep_table",
    "write_sweep",
]
