# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions about place, number, size and contact of findings, in M3D-VQA's format, and a report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from monai_medpruner.data.phantom.findings import DENSITIES, QUADRANTS, Finding, FindingsPhantom
from monai_medpruner.data.phantom.questions import M3D_VQA_COLUMNS, QUESTION_TYPES

__all__ = [
    "FINDINGS_QUESTIONS",
    "findings_answers",
    "findings_questions",
    "findings_report",
    "majority_rates",
    "question_kind",
]

_LETTERS = "ABCD"
_NUMBERS = ("One", "Two", "Three", "Four")
_YES_NO = ("Yes", "No")
#: kind -> question, choices, and M3D-VQA's number of the type. The small models are trained on this wording
FINDINGS_QUESTIONS: dict[str, tuple[str, tuple[str, ...], int]] = {
    **{
        f"presence, {density}": (f"Does this CT show a {density} finding?", _YES_NO, QUESTION_TYPES["abnormality"])
        for density in DENSITIES
    },
    **{
        f"side, {density}": (
            f"On which side of the patient does the largest {density} finding lie?",
            ("Right side", "Left side"),
            QUESTION_TYPES["location"],
        )
        for density in DENSITIES
    },
    **{
        f"quadrant, {density}": (
            f"In which quadrant does the largest {density} finding lie?",
            tuple(quadrant.capitalize() for quadrant in QUADRANTS),
            QUESTION_TYPES["location"],
        )
        for density in DENSITIES
    },
    **{
        f"touch, {density}": (
            f"Does the largest {density} finding touch the skull?",
            _YES_NO,
            QUESTION_TYPES["location"],
        )
        for density in DENSITIES
    },
    "larger": (
        "Which is larger, the largest hyperdense or the largest hypodense finding?",
        tuple(density.capitalize() for density in DENSITIES),
        QUESTION_TYPES["abnormality"],
    ),
    "count": ("How many findings does this CT show?", _NUMBERS, QUESTION_TYPES["abnormality"]),
}


def findings_answers(phantom: FindingsPhantom) -> dict[str, str]:
    """Return the correct answer to each applicable question, by kind."""
    answers = {}
    largest = {density: phantom.largest(density) for density in DENSITIES}
    for density, finding in largest.items():
        answers[f"presence, {density}"] = "No" if finding is None else "Yes"
        if finding is not None:
            answers[f"side, {density}"] = f"{finding.side.capitalize()} side"
            answers[f"quadrant, {density}"] = finding.quadrant.capitalize()
            answers[f"touch, {density}"] = "Yes" if finding.touches_skull else "No"
    found = [finding for finding in largest.values() if finding is not None]
    if len(found) == len(DENSITIES):
        answers["larger"] = max(found, key=lambda finding: finding.diameter_mm).density.capitalize()
    answers["count"] = _NUMBERS[len(phantom.findings) - 1]
    return answers


def findings_questions(phantom: FindingsPhantom, image_path: str) -> list[dict[str, str]]:
    """Return the questions about a phantom that apply to it.

    Args:
        phantom: the phantom.
        image_path: value of "Image Path".

    Returns:
        one row per question, with :data:`~.questions.M3D_VQA_COLUMNS`. A row is both an open question and a closed one.
        The order of the choices depends on the seed; absent choices, always last, are "NA".
    """
    answers = findings_answers(phantom)
    text = findings_report(phantom)["findings"]
    generator = np.random.default_rng([phantom.seed, 9])
    rows = []
    for kind, (question, choices, number) in FINDINGS_QUESTIONS.items():
        shuffled = [choices[index] for index in generator.permutation(len(choices))]
        if kind not in answers:
            continue
        padded = [*shuffled, *["NA"] * (len(_LETTERS) - len(shuffled))]
        letter = _LETTERS[shuffled.index(answers[kind])]
        values = (image_path, text, str(number), question, *padded, answers[kind], letter)
        rows.append(dict(zip(M3D_VQA_COLUMNS, values, strict=True)))
    return rows


def question_kind(question: str) -> str:
    """Return the kind of a question of :data:`FINDINGS_QUESTIONS` from its wording."""
    return next(kind for kind, (wording, _, _) in FINDINGS_QUESTIONS.items() if wording == question)


def findings_report(phantom: FindingsPhantom) -> dict[str, str]:
    """Return a report with "findings", from the lowest to the highest one, and "impression"."""
    ordered = sorted(phantom.findings, key=lambda finding: finding.center_mm[2])
    numbers = Counter(finding.density for finding in ordered)
    impression = ", ".join(f"{numbers[density]} {density}" for density in DENSITIES)
    return {"findings": " ".join(_sentence(finding) for finding in ordered), "impression": f"Findings: {impression}."}


def majority_rates(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return how often the most frequent answer to each kind of question is right, as a share.

    Args:
        rows: rows of :func:`findings_questions` of many phantoms.

    Returns:
        kind -> share; "all" is that of always giving the most frequent answer of each kind.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[question_kind(row["Question"])][row["Answer"]] += 1
    best = {kind: max(answers.values()) for kind, answers in counts.items()}
    rates = {kind: best[kind] / counts[kind].total() for kind in best}
    return {**rates, "all": sum(best.values()) / sum(answers.total() for answers in counts.values())}


def _sentence(finding: Finding) -> str:
    """Describe a finding."""
    contact = ", touching the skull" if finding.touches_skull else ""
    return f"{finding.density.capitalize()} finding of {finding.diameter_mm:.0f} mm, {finding.quadrant}{contact}."
