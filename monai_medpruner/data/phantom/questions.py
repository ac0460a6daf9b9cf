# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions about a phantom in M3D-VQA's format, and a short report."""

from __future__ import annotations

import numpy as np

from monai_medpruner.data.phantom.generate import Phantom
from monai_medpruner.data.phantom.settings import LESION_ORGANS, PHASES, PLANES

__all__ = [
    "M3D_VQA_COLUMNS",
    "QUESTIONS",
    "QUESTION_TYPES",
    "phantom_answers",
    "phantom_questions",
    "phantom_report",
]

#: columns of ``M3D_VQA_test.csv``, in order
M3D_VQA_COLUMNS = (
    "Image Path",
    "Text",
    "Question Type",
    "Question",
    "Choice A",
    "Choice B",
    "Choice C",
    "Choice D",
    "Answer",
    "Answer Choice",
)
#: M3D-VQA's numbers for question types
QUESTION_TYPES = {"plane": 1, "phase": 2, "organ": 3, "abnormality": 4, "location": 5}
_LETTERS = "ABCD"
_NONE = "No lesion"
#: question and choices of each type, in the order of :data:`QUESTION_TYPES`. The small models are trained on this
#: wording, so it must not change
QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plane": ("In which plane was this CT acquired?", tuple(plane.capitalize() for plane in PLANES)),
    "phase": ("In which contrast phase was this CT acquired?", tuple(phase.capitalize() for phase in PHASES)),
    "organ": ("Which organ bears the lesion?", tuple(organ.capitalize() for organ in LESION_ORGANS)),
    "abnormality": ("Which abnormality does this CT show?", (_NONE, "Hypodense lesion", "Hyperdense lesion")),
    "location": ("On which side of the patient does the lesion lie?", ("Right side", "Left side")),
}


def phantom_answers(phantom: Phantom) -> dict[str, str]:
    """Return the correct answer to each applicable question, by type."""
    answers = {"plane": phantom.plane.capitalize(), "phase": phantom.phase.capitalize(), "abnormality": _NONE}
    for lesion in phantom.lesions:
        answers["organ"] = lesion.organ.capitalize()
        answers["abnormality"] = f"{lesion.density.capitalize()} lesion"
        answers["location"] = f"{lesion.side.capitalize()} side"
    return answers


def phantom_questions(phantom: Phantom, image_path: str) -> list[dict[str, str]]:
    """Return the questions about a phantom: plane, phase and abnormality; organ and location only with a lesion.

    Args:
        phantom: a phantom with one lesion or none.
        image_path: value of "Image Path".

    Returns:
        one row per question, with :data:`M3D_VQA_COLUMNS`. A row is both an open question (answer "Answer") and a
        closed one ("Answer Choice", a letter). The order of the choices depends on the seed; absent choices, always
        last, are "NA".
    """
    answers = phantom_answers(phantom)
    text = " ".join(phantom_report(phantom).values())
    generator = np.random.default_rng([phantom.seed, 1])
    rows = []
    for kind, (question, choices) in QUESTIONS.items():
        shuffled = [choices[index] for index in generator.permutation(len(choices))]
        if kind not in answers:
            continue
        padded = [*shuffled, *["NA"] * (len(_LETTERS) - len(shuffled))]
        values = (image_path, text, str(QUESTION_TYPES[kind]), question, *padded, answers[kind])
        letter = _LETTERS[shuffled.index(answers[kind])]
        rows.append(dict(zip(M3D_VQA_COLUMNS, (*values, letter), strict=True)))
    return rows


def phantom_report(phantom: Phantom) -> dict[str, str]:
    """Return a structured report with "findings" and "impression"."""
    scan = f"{phantom.phase.capitalize()} CT of the torso in the {phantom.plane} plane."
    bearing = {lesion.organ for lesion in phantom.lesions}
    clear = [f"{organ.capitalize()} without lesion." for organ in LESION_ORGANS if organ not in bearing]
    seen = [
        f"{lesion.density.capitalize()} lesion of {lesion.diameter_mm:.0f} mm in the {lesion.organ}, "
        f"on the {lesion.side} side of the patient."
        for lesion in phantom.lesions
    ]
    impression = [f"{lesion.density.capitalize()} lesion of the {lesion.organ}." for lesion in phantom.lesions]
    return {"findings": " ".join([scan, *seen, *clear]), "impression": " ".join(impression) or f"{_NONE}."}
