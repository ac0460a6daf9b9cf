# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Phantoms with findings: every answer is measured again, from the coordinates of labeled voxels alone."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import (
    FINDINGS_QUESTIONS,
    HEAD_LABELS,
    M3D_VQA_COLUMNS,
    FindingsSettings,
    findings_questions,
    findings_report,
    generate_findings,
    majority_rates,
    phantom_seed,
    question_kind,
)
from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms import LoadVolume, SlicePlane

NUMBERS = ("One", "Two", "Three", "Four")


@pytest.fixture(scope="module")
def asked():
    """Phantoms of six balanced blocks of seeds, with their questions."""
    phantoms = [generate_findings(seed) for seed in range(48)]
    return [(phantom, findings_questions(phantom, f"{phantom.seed}.nii.gz")) for phantom in phantoms]


STEPS = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


def neighbors(voxel):
    """The six voxels beside a voxel."""
    return [tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in STEPS]


def voxels(mask):
    """The voxels of a mask, as a set of triples."""
    return set(map(tuple, np.argwhere(mask).tolist()))


def connected(found):
    """Parts of a set of voxels that are connected by faces, edges or corners, by walking from voxel to voxel."""
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    left, parts = set(found), []
    while left:
        part, border = set(), [left.pop()]
        while border:
            voxel = border.pop()
            part.add(voxel)
            beside = {tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in steps} & left
            left -= beside
            border += beside
        parts.append(part)
    return parts


def world(phantom, found):
    """World position of the center of voxels (N, 3)."""
    return nib.affines.apply_affine(phantom.affine, np.mean(found, axis=0))


def shrunk(mask, times):
    """A mask without its border in the plane of the slices."""
    for _ in range(times):
        inner = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        mask = np.pad(inner, ((1, 1), (1, 1), (0, 0)))
    return mask


def grown(mask, times):
    """A mask with its surroundings in the plane of the slices."""
    return ~shrunk(~np.pad(mask, ((times, times), (times, times), (0, 0))), times)[times:-times, times:-times]


def measured_answers(phantom):
    """Answers by kind, from connected parts of the mask, numbers of voxels, centers and HU."""
    parts = connected(voxels(phantom.lesion_mask > 0))
    answers = {"count": NUMBERS[len(parts) - 1]}
    middle = world(phantom, np.argwhere(phantom.organs == HEAD_LABELS["brain"]))
    calm = shrunk(phantom.organs == HEAD_LABELS["brain"], 2) & (phantom.lesion_mask == 0)
    brain = np.median(phantom.volume[calm])
    largest = {}
    blurred = grown(phantom.organs == HEAD_LABELS["skull"], 2)
    for part in parts:
        darker = np.mean([phantom.volume[voxel] for voxel in part if not blurred[voxel]]) < brain
        density = "hypodense" if darker else "hyperdense"
        largest[density] = max(part, largest.get(density, set()), key=len)
    for density in ("hyperdense", "hypodense"):
        answers[f"presence, {density}"] = "Yes" if density in largest else "No"
        if density not in largest:
            continue
        part = largest[density]
        place = world(phantom, list(part)) - middle
        side = "right" if place[0] > 0 else "left"
        answers[f"side, {density}"] = f"{side.capitalize()} side"
        answers[f"quadrant, {density}"] = f"{side.capitalize()} {'anterior' if place[1] > 0 else 'posterior'}"
        around = {other for voxel in part for other in neighbors(voxel)}
        inside = [other for other in around if min(other) >= 0 and np.less(other, phantom.organs.shape).all()]
        touches = any(phantom.organs[other] == HEAD_LABELS["skull"] for other in inside)
        answers[f"touch, {density}"] = "Yes" if touches else "No"
    if len(largest) == 2:
        answers["larger"] = max(largest, key=lambda density: len(largest[density])).capitalize()
    return answers


def test_answers_match_the_measurements(asked):
    for phantom, rows in asked:
        answers = {question_kind(row["Question"]): row["Answer"] for row in rows}
        assert answers == measured_answers(phantom), phantom.seed


def test_numbers_of_findings_are_balanced(asked):
    counts = Counter(len(phantom.findings) for phantom, _ in asked)
    assert counts == {1: 12, 2: 12, 3: 12, 4: 12}


def test_findings_are_small_and_of_low_contrast(asked):
    settings = FindingsSettings()
    for phantom, _ in asked:
        for finding in phantom.findings:
            assert 4 <= finding.diameter_mm <= 20
            low, high = getattr(settings, f"{finding.density}_hu")
            assert low <= abs(finding.contrast_hu) <= high
            mask = phantom.lesion_mask == finding.label
            assert finding.voxels == mask.sum() >= 2
            extent = (np.ptp(np.argwhere(mask), axis=0) + 1) * phantom.spacing
            assert (extent <= 1.09 * finding.diameter_mm + np.array(phantom.spacing)).all()
            assert (phantom.organs[mask] == HEAD_LABELS["brain"]).all()


def test_largest_findings_are_clearly_the_largest(asked):
    for phantom, _ in asked:
        for density in ("hyperdense", "hypodense"):
            sizes = sorted(one.diameter_mm for one in phantom.findings if one.density == density)
            assert len(sizes) < 2 or sizes[-1] >= 1.29 * sizes[-2]


def test_scans_vary(asked):
    phantoms = [phantom for phantom, _ in asked]
    assert {phantom.volume.shape[0] for phantom in phantoms} == {96, 112, 128}
    assert min(phantom.noise_hu for phantom in phantoms) < 2.5 < 4 < max(phantom.noise_hu for phantom in phantoms)
    assert min(phantom.kernel_mm for phantom in phantoms) < 0.8 < 1.5 < max(phantom.kernel_mm for phantom in phantoms)
    assert {np.sign(phantom.affine[2, 2]) for phantom in phantoms} == {-1, 1}


def test_noise_in_the_brain_is_that_of_the_dose(asked):
    """Deviation of the brain deep below the skull, which findings and lookalikes, being few, do not change."""
    for phantom, _ in asked[:12]:
        values = phantom.volume[shrunk(phantom.organs == HEAD_LABELS["brain"], 4) & (phantom.lesion_mask == 0)]
        spread = 1.4826 * np.median(np.abs(values - np.median(values)))
        assert spread == pytest.approx(phantom.noise_hu, abs=1.0)


def test_lookalikes_and_distractors_are_there_and_no_findings(asked):
    """Bright and dark voxels in the brain outside all findings, and dense ones outside the head."""
    bright, dark, outside = 0, 0, 0
    for phantom, _ in asked:
        brain = shrunk(phantom.organs == HEAD_LABELS["brain"], 3) & ~grown(phantom.lesion_mask > 0, 3)
        values = phantom.volume[brain]
        bright += bool((values > 50 + 6 * phantom.noise_hu).any())
        dark += bool((values < 20 - 5 * phantom.noise_hu).any())
        outside += bool((phantom.volume[shrunk(phantom.organs == 0, 1)] > 0).any())
    assert bright >= 16
    assert dark >= 4
    assert outside >= 36


def test_a_seed_gives_the_same_phantom_in_any_order(asked):
    def digest(phantom):
        parts = (phantom.volume, phantom.organs, phantom.lesion_mask, phantom.affine)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    again = {seed: digest(generate_findings(seed)) for seed in (30, 2)}
    assert again == {seed: digest(asked[seed][0]) for seed in (30, 2)}
    assert digest(generate_findings(0)) != digest(generate_findings(8))


def test_columns_choices_and_letters(asked):
    for phantom, rows in asked:
        for row in rows:
            assert tuple(row) == M3D_VQA_COLUMNS
            _, choices, number = FINDINGS_QUESTIONS[question_kind(row["Question"])]
            listed = [row[f"Choice {letter}"] for letter in "ABCD"]
            assert sorted(listed[: len(choices)]) == sorted(choices)
            assert set(listed[len(choices) :]) <= {"NA"}
            assert row[f"Choice {row['Answer Choice']}"] == row["Answer"]
            assert row["Question Type"] == str(number)
            assert row["Image Path"] == f"{phantom.seed}.nii.gz"


def test_majority_rates_count_the_most_frequent_answers(asked):
    rows = [row for _, rows in asked for row in rows]
    rates = majority_rates(rows)
    assert rates["count"] == 0.25
    for kind in ("side, hyperdense", "touch, hypodense"):
        answers = [row["Answer"] for row in rows if question_kind(row["Question"]) == kind]
        assert rates[kind] == max(answers.count(one) for one in set(answers)) / len(answers)
    best = sum(rates[kind] * sum(question_kind(row["Question"]) == kind for row in rows) for kind in FINDINGS_QUESTIONS)
    assert rates["all"] == pytest.approx(best / len(rows))
    # nobody who sees nothing does much better than chance
    assert all(rate < 0.85 for rate in rates.values())


def test_report_names_every_finding_from_below(asked):
    for phantom, _ in asked:
        sentences = findings_report(phantom)["findings"].split(". ")
        ordered = sorted(phantom.findings, key=lambda one: one.center_mm[2])
        assert [sentence.split()[0].lower() for sentence in sentences] == [one.density for one in ordered]
        assert [("touching" in sentence) for sentence in sentences] == [one.touches_skull for one in ordered]


@pytest.mark.parametrize(
    "wrong",
    [
        {"diameter_mm": (3.0, 20.0)},
        {"counts": (0, 1)},
        {"counts": ()},
        {"in_plane_sizes": (32,)},
        {"rotation_degrees": 20.0},
        {"noise_hu": (5.0, 2.0)},
    ],
)
def test_invalid_settings(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        FindingsSettings(**wrong)


def test_negative_seed():
    with pytest.raises(SettingsError, match="at least 0"):
        generate_findings(-1)


def test_command_writes_the_preset(tmp_path):
    main(["phantom", "--preset", "findings", "--count", "2", "--seed", "5", "--out", str(tmp_path)])
    truths = [json.loads(line) for line in (tmp_path / "phantoms.jsonl").read_text().splitlines()]
    with (tmp_path / "M3D_VQA_test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for index, truth in enumerate(truths):
        phantom = generate_findings(phantom_seed(5, index))
        assert truth["organ_labels"] == HEAD_LABELS
        assert [one["density"] for one in truth["lesions"]] == [one.density for one in phantom.findings]
        own = [row for row in rows if row["Image Path"] == truth["image"]]
        assert own == findings_questions(phantom, truth["image"])
        mask = SlicePlane()(LoadVolume()(str(tmp_path / truth["lesion_mask"])))
        assert len(np.unique(mask)) == len(phantom.findings) + 1
        np.testing.assert_array_equal(nib.load(tmp_path / truth["image"]).get_fdata(), phantom.volume)
