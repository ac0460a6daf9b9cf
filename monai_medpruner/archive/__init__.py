# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions about many studies, on one machine or a Ray cluster."""

from __future__ import annotations

from monai_medpruner.archive.pipeline import Workers
from monai_medpruner.archive.run import answer_archive
from monai_medpruner.archive.stages import BundleSettings
from monai_medpruner.archive.studies import archive_items, study_paths

__all__ = ["BundleSettings", "Workers", "answer_archive", "archive_items", "study_paths"]
