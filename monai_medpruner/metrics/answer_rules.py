# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules that decide whether an answer to a closed question is correct, including those behind published numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.choice_parser import parse_choice

__all__ = ["ANSWER_RULES", "HEADLINE_RULE", "answer_is_correct"]

_LEADING_LETTER = re.compile(r"^([a-d])[.\):]?\s*")


def _robust(answer: str, reference_choice: str, choices: Mapping[str, str]) -> bool:
    return parse_choice(answer, choices) == reference_choice


def _m3d_substring(answer: str, reference_choice: str, choices: Mapping[str, str]) -> bool:
    """M3D's ``eval_vqa.py``: a bare "B" is wrong; an answer that repeats all options is correct."""
    return f"{reference_choice}." in answer


def _meduni_letter(answer: str, reference_choice: str, choices: Mapping[str, str]) -> bool:
    """MedUniEval's ``extract_choice_letter``: "Both lungs" is read as b, "The answer is B" as no letter."""
    match = _LEADING_LETTER.match(answer.lower().strip())
    return match is not None and match[1] == reference_choice.lower()


#: rule name -> function (answer, letter of the correct choice, choices) -> whether the answer is correct
ANSWER_RULES: dict[str, Callable[[str, str, Mapping[str, str]], bool]] = {
    "robust": _robust,
    "m3d-substring": _m3d_substring,
    "meduni-letter": _meduni_letter,
}

#: the rule behind every accuracy that does not name one
HEADLINE_RULE = "robust"


def answer_is_correct(
    answer: str, reference_choice: str, choices: Mapping[str, str] | None = None, rule: str = HEADLINE_RULE
) -> bool:
    """Return whether an answer to a closed question is correct.

    Args:
        answer: the model's text. An empty answer is wrong under every rule.
        reference_choice: letter of the correct choice, upper case.
        choices: letter -> text of the available choices.
        rule: one of :data:`ANSWER_RULES`: "robust" (:func:`~monai_medpruner.metrics.choice_parser.parse_choice`),
            "m3d-substring" (the letter followed by a dot occurs), "meduni-letter" (the lower-case text matches
            ``^([a-d])[.\\):]?\\s*``).

    Returns:
        True if the answer is correct.

    Raises:
        SettingsError: the rule is unknown.
    """
    if rule not in ANSWER_RULES:
        raise SettingsError(f"unknown answer rule {rule!r}; expected one of: {', '.join(ANSWER_RULES)}")
    return ANSWER_RULES[rule](answer, reference_choice, choices or {})
