# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Results as values that can be saved, loaded and summarized: study records, answers, and lines of result files."""

from __future__ import annotations

from monai_medpruner.results.answer import Answer, StudyAnswers
from monai_medpruner.results.lines import LINE_SCHEMA, append_line, json_line, result_line
from monai_medpruner.results.pruning_record import PruningRecord
from monai_medpruner.results.result_folder import RunResults, read_lines, read_results
from monai_medpruner.results.slice_gap import SliceGap, largest_gap
from monai_medpruner.results.slice_record import SliceRecord
from monai_medpruner.results.stage_times import STAGES, StageTimes, synchronize
from monai_medpruner.results.study_record import NOTED_GAP_MM, StudyRecord, VolumeGeometry
from monai_medpruner.results.tensor_bytes import tensor_bytes
from monai_medpruner.results.versions import package_versions

__all__ = [
    "LINE_SCHEMA",
    "NOTED_GAP_MM",
    "STAGES",
    "Answer",
    "PruningRecord",
    "RunResults",
    "SliceGap",
    "SliceRecord",
    "StageTimes",
    "StudyAnswers",
    "StudyRecord",
    "VolumeGeometry",
    "append_line",
    "json_line",
    "largest_gap",
    "package_versions",
    "read_lines",
    "read_results",
    "result_line",
    "synchronize",
    "tensor_bytes",
]
