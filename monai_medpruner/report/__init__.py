# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Results as tables, figures, maps and pages."""

from __future__ import annotations

from monai_medpruner.report.answer_table import answer_table, kept_text, seconds_text
from monai_medpruner.report.compare_page import write_comparison
from monai_medpruner.report.keep_map import KEEP_LABELS, KeepMap, keep_map
from monai_medpruner.report.keep_map_files import write_keep_maps
from monai_medpruner.report.pruning_figure import pruning_figure
from monai_medpruner.report.study_report import study_page, write_reports
from monai_medpruner.report.sweep_report import sweep_table, write_sweep
from monai_medpruner.report.view_files import study_server

__all__ = [
    "KEEP_LABELS",
    "KeepMap",
    "answer_table",
    "keep_map",
    "kept_text",
    "pruning_figure",
    "seconds_text",
    "study_page",
    "study_server",
    "sweep_table",
    "write_comparison",
    "write_keep_maps",
    "write_reports",
    "write_sweep",
]
