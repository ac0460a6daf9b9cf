# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions and reports, compared with answers measured from the phantom's masks and voxels."""

from __future__ import annotations

from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from monai_medpruner.data.phantom import (
    M3D_VQA_COLUMNS,
    ORGANS,
    PhantomSettings,
    generate_phantom,
    phantom_questions,
    phantom_report,
)

SMALL = PhantomSettings(in_plane_sizes=(64,), depth=(20, 32))
NAMES = {label: name for name, label in ORGANS.items()}


@pytest.fixture(scope="module")
def asked():
    """Phantoms of two balanced blocks of seeds, with their questions."""
    phantoms = [generate_phantom(seed, SMALL) for seed in range(72)]
    return [(phantom, phantom_questions(phantom, f"{phantom.seed}.nii.gz")) for phantom in phantoms]


def measured_answers(phantom):
    """Answers by question type, measured only from masks, voxels and affine."""
    codes = nib.aff2axcodes(phantom.affine)
    answers = {"1": {"S": "Axial", "I": "Axial", "A": "Coronal", "P": "Coronal"}.get(codes[2], "Sagittal")}
    aorta, kidney = (np.median(phantom.volume[phantom.organs == ORGANS[name]]) for name in ("aorta", "left kidney"))
    answers["2"] = "Arterial" if aorta > 230 else "Venous" if kidney > 120 else "Non-contrast"
    mask = phantom.lesion_mask > 0
    answers["4"] = "No lesion"
    if mask.any():
        (label,) = np.unique(phantom.organs[mask])
        around = (phantom.organs == label) & ~mask
        darker = phantom.volume[mask].mean() < phantom.volume[around].mean()
        answers["3"] = NAMES[label].split()[-1].capitalize()
        answers["4"] = "Hypodense lesion" if darker else "Hyperdense lesion"
        lesion_x, spine_x = (
            (phantom.affine @ [*np.argwhere(part).mean(0), 1])[0] for part in (mask, phantom.organs == ORGANS["spine"])
        )
        answers["5"] = "Right side" if lesion_x > spine_x else "Left side"
    return answers


def test_answers_match_the_measurements(asked):
    for phantom, rows in asked:
        assert {row["Question Type"]: row["Answer"] for row in rows} == measured_answers(phantom), phantom.seed


def test_columns_and_choices(asked):
    for phantom, rows in asked:
        for row in rows:
            assert tuple(row) == M3D_VQA_COLUMNS
            assert row["Image Path"] == f"{phantom.seed}.nii.gz"
            choices = [row[f"Choice {letter}"] for letter in "ABCD"]
            assert row["Answer"] == choices["ABCD".index(row["Answer Choice"])]
            real = [choice for choice in choices if choice != "NA"]
            assert choices == real + ["NA"] * (4 - len(real))
            assert len(set(real)) == len(real) == {"1": 3, "2": 3, "3": 4, "4": 3, "5": 2}[row["Question Type"]]
            assert row["Question"].endswith("?")


def test_answers_and_letters_are_balanced(asked):
    rows = [row for _, rows in asked for row in rows]
    for kind, number, share in (("1", 72, 24), ("2", 72, 24), ("3", 48, 12), ("4", 72, 24), ("5", 48, 24)):
        of_kind = [row for row in rows if row["Question Type"] == kind]
        assert len(of_kind) == number
        assert set(Counter(row["Answer"] for row in of_kind).values()) == {share}
        letters = Counter(row["Answer Choice"] for row in of_kind)
        real = number // share
        # five standard deviations around even shares
        deviation = np.sqrt(number / real * (1 - 1 / real))
        assert all(abs(letters[letter] - share) < 5 * deviation for letter in "ABCD"[:real])
        assert len({tuple(row[f"Choice {letter}"] for letter in "ABCD") for row in of_kind}) > 1


def test_letters_do_not_reveal_the_answer(asked):
    rows = [row for _, rows in asked for row in rows]
    for kind in "12345":
        pairs = {(row["Answer"], row["Answer Choice"]) for row in rows if row["Question Type"] == kind}
        assert len(pairs) >= 1.5 * len({answer for answer, _ in pairs})


def test_questions_are_determined_by_the_seed(asked):
    phantom, rows = asked[11]
    assert phantom_questions(generate_phantom(11, SMALL), "11.nii.gz") == rows
    assert phantom.seed == 11


def test_reports_match_the_measurements(asked):
    for phantom, rows in asked:
        report = phantom_report(phantom)
        assert set(report) == {"findings", "impression"}
        assert rows[0]["Text"] == f"{report['findings']} {report['impression']}"
        answers = measured_answers(phantom)
        assert report["findings"].startswith(f"{answers['2']} CT of the torso in the {answers['1'].lower()} plane.")
        organs = {organ for organ in ("Liver", "Spleen", "Kidney", "Lung") if f"{organ} without" in report["findings"]}
        assert organs == {"Liver", "Spleen", "Kidney", "Lung"} - {answers.get("3")}
        if phantom.lesions:
            found = f"{answers['4']} of {phantom.lesions[0].diameter_mm:.0f} mm in the {answers['3'].lower()}, "
            assert found + f"on the {answers['5'].lower()} of the patient." in report["findings"]
            assert report["impression"] == f"{answers['4']} of the {answers['3'].lower()}."
        else:
            assert "mm" not in report["findings"]
            assert report["impression"] == "No lesion."
