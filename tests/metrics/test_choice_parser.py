# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Hand-written answers with the choice that a careful reader would assign."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.metrics import answer_is_correct, parse_choice

ORGANS = {"A": "Spleen", "B": "Liver", "C": "Left kidney", "D": "Right kidney"}
LUNGS = {"A": "Left lung", "B": "Right lung", "C": "Heart", "D": "Both lungs"}
YES_NO = {"A": "Yes", "B": "No"}
COUNTS = {"A": "1", "B": "2", "C": "12", "D": "2.5"}
PHASES = {"A": "Arterial phase", "B": "Non-contrast", "C": "Venous phase", "D": "Cannot be determined"}
EFFUSIONS = {"A": "Pleural effusion", "B": "No pleural effusion", "C": "Normal", "D": "Abnormal"}

NESTED = {"A": "Lung", "B": "Left lung", "C": "Left lung apex"}

CASES = [
    # the letter alone
    ("B", ORGANS, "B"),
    ("b", ORGANS, "B"),
    ("B.", ORGANS, "B"),
    (" (D) ", ORGANS, "D"),
    ("[c]", ORGANS, "C"),
    ("**C**", ORGANS, "C"),
    ("`a`", ORGANS, "A"),
    ('"B"', ORGANS, "B"),
    ("Ｂ", ORGANS, "B"),  # full width
    ("B\nThe spleen looks normal.", ORGANS, "B"),
    # a label, then text
    ("B. Liver", ORGANS, "B"),
    ("B.Liver", ORGANS, "B"),
    ("b) liver", ORGANS, "B"),
    ("(c) Left kidney", ORGANS, "C"),
    ("D: right kidney", ORGANS, "D"),
    ("D - Right kidney", ORGANS, "D"),
    ("B Liver", ORGANS, "B"),
    ("A, spleen", ORGANS, "A"),
    ("**B. Liver**", ORGANS, "B"),
    ("B. Spleen", ORGANS, "B"),  # the label counts
    ("B because it lies on the right", ORGANS, "B"),
    ("A is correct.", ORGANS, "A"),
    ("A. A lesion is seen in the spleen.", ORGANS, "A"),
    ("Option b", ORGANS, "B"),
    ("OPTION D is the best one", ORGANS, "D"),
    ("Choice (C)", ORGANS, "C"),
    ("option a", ORGANS, "A"),
    # declared
    ("The answer is B", ORGANS, "B"),
    ("The answer is b.", ORGANS, "B"),
    ("Answer: (D)", ORGANS, "D"),
    ("Answer:B", ORGANS, "B"),
    ("Answer B", ORGANS, "B"),
    ("Ans: C", ORGANS, "C"),
    ("**Answer:** C. Left kidney", ORGANS, "C"),
    ("The correct answer is option C.", ORGANS, "C"),
    ("The correct option is D", ORGANS, "D"),
    ("The answer to this question is most likely B.", ORGANS, "B"),
    ("The answer is A because the spleen is large.", ORGANS, "A"),
    ("The answer is A.", ORGANS, "A"),
    ("The answer is the liver.", ORGANS, "B"),
    ("The spleen is normal and so is the heart. The answer is the liver.", ORGANS, "B"),
    ("The answer is a lesion in the liver.", ORGANS, "B"),
    ("The answer is B, not A.", ORGANS, "B"),
    ("The answer is not A, it is C.", ORGANS, "C"),
    ("First I thought the answer is A. Final answer: D", ORGANS, "D"),
    ("The organ is large, so \\boxed{B}", ORGANS, "B"),
    ("$\\boxed{\\text{C}}$", ORGANS, "C"),
    ("<answer>D</answer>", ORGANS, "D"),
    ("<think>Maybe A. Spleen?</think>B", ORGANS, "B"),
    ("A. Spleen B. Liver C. Left kidney D. Right kidney. Answer: B", ORGANS, "B"),
    # named later in the text
    ("I choose B.", ORGANS, "B"),
    ("I would go with option C", ORGANS, "C"),
    ("It is D.", ORGANS, "D"),
    ("The organ shown (B) is enlarged", ORGANS, "B"),
    ("Option A is wrong. Option B fits.", ORGANS, "B"),
    # a choice's text
    ("Liver", ORGANS, "B"),
    ("the liver", ORGANS, "B"),
    ("LIVER.", ORGANS, "B"),
    ("Both lungs", LUNGS, "D"),
    ("Both lungs are affected", LUNGS, "D"),
    ("The mass lies in the left  lung, near the hilum.", LUNGS, "A"),
    ("It is not the liver but the spleen.", ORGANS, "A"),
    ("The mass lies in the left lung", NESTED, "B"),
    ("a mass of the left lung apex", NESTED, "C"),
    ("a lesion is seen in the left kidney", ORGANS, "C"),
    ("A left kidney lesion", ORGANS, "C"),
    ("Yes", YES_NO, "A"),
    ("no.", YES_NO, "B"),
    ("Yes, there is no doubt about it.", YES_NO, "A"),
    ("There is no sign of it.", YES_NO, "B"),
    ("2", COUNTS, "B"),
    ("There are 12 of them", COUNTS, "C"),
    ("2.5", COUNTS, "D"),
    ("It measures 2.5 cm", COUNTS, "D"),
    ("Non-contrast", PHASES, "B"),
    ("Cannot be determined", PHASES, "D"),
    ("It cannot be determined from this scan.", PHASES, "D"),
    ("No pleural effusion", EFFUSIONS, "B"),
    ("There is no pleural effusion here", EFFUSIONS, "B"),
    ("The scan is abnormal", EFFUSIONS, "D"),
    # no choice, or several
    ("", ORGANS, None),
    ("   \n", ORGANS, None),
    ("...", ORGANS, None),
    ("Cannot be determined", ORGANS, None),
    ("I cannot tell whether it is the liver.", ORGANS, None),
    ("Both lungs", ORGANS, None),
    ("Both lungs", {"A": "Left lung", "B": "Right lung"}, None),
    ("A or B", ORGANS, None),
    ("A, B", ORGANS, None),
    ("B and C.", ORGANS, None),
    ("A/D", ORGANS, None),
    ("The answer is B or C.", ORGANS, None),
    ("AB", ORGANS, None),
    ("A. Spleen B. Liver C. Left kidney D. Right kidney", ORGANS, None),
    ("Liver and spleen", ORGANS, None),
    ("a lesion is seen", ORGANS, None),
    ("A lesion is seen.", ORGANS, None),
    ("Answer: a lesion", ORGANS, None),
    ("not the liver", ORGANS, None),
    ("E", ORGANS, None),
    ("D", YES_NO, None),
    ("C4 vertebra", ORGANS, None),
    ("B-cell lymphoma", ORGANS, None),
    ("A.P. view", ORGANS, None),
    ("Vitamin D deficiency", ORGANS, None),
    ("Delivery", ORGANS, None),
    ("13", COUNTS, None),
    ("Hepatic segments", ORGANS, None),
    ("Type B dissection", ORGANS, None),
]


def test_cases_cover_every_choice():
    assert len(CASES) >= 60
    assert {expected for _, _, expected in CASES} == {"A", "B", "C", "D", None}


@pytest.mark.parametrize(("prediction", "choices", "expected"), CASES)
def test_hand_written_answers(prediction, choices, expected):
    assert parse_choice(prediction, choices) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"), [("B", "B"), ("The answer is (c)", "C"), ("E", None), ("Liver", None)]
)
def test_choices_default_to_a_to_d(prediction, expected):
    assert parse_choice(prediction) == expected
    assert parse_choice(prediction, {}) == expected


@pytest.mark.parametrize("letter", ORGANS)
@pytest.mark.parametrize(
    "form",
    ["{}", "({})", "{}.", "{}) {}", "{}. {}", "Answer: {}", "The answer is {}.", "I choose {}", "Option {}", "**{}**"],
)
def test_every_letter_in_every_form(letter, form):
    assert parse_choice(form.format(letter, ORGANS[letter]), ORGANS) == letter


@pytest.mark.parametrize("choices", [ORGANS, LUNGS, PHASES, EFFUSIONS, COUNTS])
def test_choice_text_names_the_choice(choices):
    assert [parse_choice(text.upper(), choices) for text in choices.values()] == list(choices)


def test_duplicate_choice_texts_name_none():
    assert parse_choice("liver", {"A": "Liver", "B": "Liver"}) is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.dictionaries(st.sampled_from("ABCDEF"), st.text(max_size=8), max_size=6))
def test_any_text_gives_an_available_letter_or_none(prediction, choices):
    assert parse_choice(prediction, choices) in {None, *(choices or "ABCD")}


@pytest.mark.parametrize(
    ("rule", "answer", "reference_choice", "expected"),
    [
        ("m3d-substring", "B", "B", False),
        ("m3d-substring", "The answer is B. Liver", "B", True),
        ("m3d-substring", "A. Spleen B. Liver C. Left kidney D. Right kidney", "B", True),
        ("m3d-substring", "b. liver", "B", False),
        ("m3d-substring", "", "B", False),
        ("meduni-letter", "Both lungs", "B", True),
        ("meduni-letter", "The answer is B", "B", False),
        ("meduni-letter", "  B) liver", "B", True),
        ("meduni-letter", "b", "B", True),
        ("meduni-letter", "B", "A", False),
        ("meduni-letter", "", "A", False),
        ("robust", "The answer is B", "B", True),
        ("robust", "Both lungs", "B", False),
        ("robust", "", "B", False),
    ],
)
def test_named_rules(rule, answer, reference_choice, expected):
    assert answer_is_correct(answer, reference_choice, ORGANS, rule) is expected
