# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""CT phantoms: volumes with known ground truth, questions about them, and a benchmark writer."""

from __future__ import annotations

from monai_medpruner.data.phantom.anatomy import HOUNSFIELD, ORGANS
from monai_medpruner.data.phantom.findings import (
    DENSITIES,
    QUADRANTS,
    Finding,
    FindingsPhantom,
    generate_findings,
)
from monai_medpruner.data.phantom.findings_questions import (
    FINDINGS_QUESTIONS,
    findings_answers,
    findings_questions,
    findings_report,
    majority_rates,
    question_kind,
)
from monai_medpruner.data.phantom.findings_settings import FindingsSettings
from monai_medpruner.data.phantom.generate import Lesion, Phantom, generate_phantom
from monai_medpruner.data.phantom.head import HEAD_HU, HEAD_LABELS
from monai_medpruner.data.phantom.questions import (
    M3D_VQA_COLUMNS,
    QUESTION_TYPES,
    QUESTIONS,
    phantom_answers,
    phantom_questions,
    phantom_report,
)
from monai_medpruner.data.phantom.settings import LESION_ORGANS, PHASES, PLANES, PRESETS, PhantomSettings
from monai_medpruner.data.phantom.write import findings_truth, phantom_command, phantom_seed, phantom_truth

__all__ = [
    "DENSITIES",
    "FINDINGS_QUESTIONS",
    "HEAD_HU",
    "HEAD_LABELS",
    "HOUNSFIELD",
    "LESION_ORGANS",
    "M3D_VQA_COLUMNS",
    "ORGANS",
    "PHASES",
    "PLANES",
    "PRESETS",
    "QUADRANTS",
    "QUESTIONS",
    "QUESTION_TYPES",
    "Finding",
    "FindingsPhantom",
    "FindingsSettings",
    "Lesion",
    "Phantom",
    "PhantomSettings",
    "findings_answers",
    "findings_questions",
    "findings_report",
    "findings_truth",
    "generate_findings",
    "generate_phantom",
    "majority_rates",
    "phantom_answers",
    "phantom_command",
    "phantom_questions",
    "phantom_report",
    "phantom_seed",
    "phantom_truth",
    "question_kind",
]
