# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Results as values: what was kept of a study and what was answered, saved, loaded and summarized."""

from __future__ import annotations

from monai_medpruner.results.slice_record import SliceRecord
from monai_medpruner.results.stage_times import STAGES, StageTimes, synchronize

__all__ = ["STAGES", "SliceRecord", "StageTimes", "synchronize"]
