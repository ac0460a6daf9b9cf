# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""When an answer to a closed question counts as correct, under the rules that published numbers use."""

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
    """M3D's ``eval_vqa.py``: a bare "B" is wrong, and all options repeated are right."""
    return f"{reference_choice}." in answer


def _meduni_letter(answer: str, reference_choice: str, choices: Mapping[str, str]) -> bool:
    """MedUniEval's ``extract_choice_letter``: "Both lungs" is b, and "The answer is B" is nothing."""
    match = _LEADING_LETTER.match(answer.lower().strip())
    return match is not None and match[1] == reference_choice.lower()


#: every rule by its name: (answer, letter of the right choice, choices) -> whether it is correct
ANSWER_RULES: dict[str, Callable[[str, str, Mapping[str, str]], bool]] = {
    "robust": _robust,
    "m3d-substring": _m3d_substring,
    "meduni-letter": _meduni_letter,
}

#: the rule of every number that names none
HEADLINE_RULE = "robust"


def answer_is_correct(
    answer: str, reference_choice: str, choices: Mapping[str, str] | None = None, rule: str = HEADLINE_RULE
) -> bool:
    """Judge an answer to a closed question.

    Args:
        answer: what the model wrote; empty is wrong under every rule.
        reference_choice: letter of the right choice, upper case.
        choices: letter -> text of the choices there are.
        rule: one of :data:`ANSWER_RULES`: "robust" (:func:`~monai_medpruner.metrics.choice_parser.parse_choice`),
            "m3d-substring" (the letter and a dot occur), "meduni-letter" (``^([a-d])[.\\):]?\\s*`` in lower case).

    Returns:
        Whether it is correct.

    Raises:
        SettingsError: no rule has that name.
    """
    if rule not in ANSWER_RULES:
        raise SettingsError(f"no answer rule is named {rule!r}; there are: {', '.join(ANSWER_RULES)}")
    return ANSWER_RULES[rule](answer, reference_choice, choices or {})
