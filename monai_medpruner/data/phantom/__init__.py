# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""CT phantoms: volumes with known ground truth, questions about them, and a benchmark writer."""

from __future__ import annotations

from monai_medpruner.data.phantom.anatomy import HOUNSFIELD, ORGANS
from monai_medpruner.data.phantom.generate import Lesion, Phantom, generate_phantom
from monai_medpruner.data.phantom.questions import (
    M3D_VQA_COLUMNS,
    QUESTION_TYPES,
    QUESTIONS,
    phantom_answers,
    phantom_questions,
    phantom_report,
)
from monai_medpruner.data.phantom.settings import LESION_ORGANS, PHASES, PLANES, PRESETS, PhantomSettings
from monai_medpruner.data.phantom.write import phantom_command, phantom_seed, phantom_truth

__all__ = [
    "HOUNSFIELD",
    "LESION_ORGANS",
    "M3D_VQA_COLUMNS",
    "ORGANS",
    "PHASES",
    "PLANES",
    "PRESETS",
    "QUESTIONS",
    "QUESTION_TYPES",
    "Lesion",
    "Phantom",
    "PhantomSettings",
    "generate_phantom",
    "phantom_answers",
    "phantom_command",
    "phantom_questions",
    "phantom_report",
    "phantom_seed",
    "phantom_truth",
]
