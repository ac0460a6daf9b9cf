# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""CT phantoms: volumes with known truth, questions about them, and the command that writes a benchmark of them."""

from __future__ import annotations

from .anatomy import HOUNSFIELD, ORGANS
from .generate import Lesion, Phantom, generate_phantom
from .questions import (
    M3D_VQA_COLUMNS,
    QUESTION_TYPES,
    QUESTIONS,
    phantom_answers,
    phantom_questions,
    phantom_report,
)
from .settings import LESION_ORGANS, PHASES, PLANES, PRESETS, PhantomSettings
from .write import phantom_command, phantom_seed, phantom_truth

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
