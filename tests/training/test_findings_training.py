# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training on phantoms with findings: what each stage is given, what it is not told, and which tokens are kept."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from monai_medpruner.data.phantom import FINDINGS_QUESTIONS, FindingsSettings, findings_answers, generate_findings
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.training import (
    FINDINGS_SHAPE,
    NO_FINDING_CAPTION,
    AnswerLoss,
    AnswerNetwork,
    FindingsAnswerBatches,
    encode_findings,
    exact_answers,
    findings_pool,
    findings_volume,
    kept_slices,
    oracle_tokens,
    random_tokens,
    untrained_network,
)
from monai_medpruner.training.findings_answers import prompt_text
from monai_medpruner.training.vision_warm_up import is_language

SIDE = 6
SETTINGS = FindingsSettings(in_plane_sizes=(96,), depth=(8, 8))
PLAN = {"questions": 2, "full_batch_size": 1, "full_fraction": 0.0, "min_share": 0.05, "first_share": 0.05}
PLAN |= {"growth_epochs": 4, "closed_fraction": 0.5, "steps": 2, "seed": 0}


@pytest.fixture(scope="module")
def phantoms():
    return [generate_findings(seed, SETTINGS) for seed in range(3)]


@pytest.fixture(scope="module")
def volumes(phantoms):
    return [findings_volume(phantom, SIDE) for phantom in phantoms]


@pytest.fixture(scope="module", params=["qwen3_vl", "gemma3"])
def network(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp(request.param))
    return untrained_network(request.param, folder, device="cpu", shape=FINDINGS_SHAPE)


def test_captions_name_what_the_masks_show(phantoms, volumes):
    for phantom, volume in zip(phantoms, volumes, strict=True):
        order = np.argsort(phantom.affine[2, 2] * np.arange(phantom.volume.shape[2]))  # from the lowest slice
        for index, caption in zip(order, volume.captions, strict=True):
            labels, counts = np.unique(phantom.lesion_mask[:, :, index], return_counts=True)
            seen = {int(label) for label, count in zip(labels, counts, strict=True) if label and count >= 2}
            shown = [phantom.findings[label - 1] for label in seen]
            expected = sorted((finding.density, finding.quadrant) for finding in shown)
            found = re.findall(r"(hyperdense|hypodense) \d+ mm (\w+ \w+) row [1-6] column [1-6]", caption)
            assert sorted(found) == expected
            assert (caption == NO_FINDING_CAPTION) == (not seen)


def test_areas_are_shares_of_squares(phantoms, volumes):
    for phantom, volume in zip(phantoms, volumes, strict=True):
        pixels = (phantom.volume.shape[0] / SIDE) ** 2
        totals = volume.areas.sum((0, 2)) * pixels
        np.testing.assert_allclose(totals, [finding.voxels for finding in phantom.findings], rtol=1e-4)
        assert volume.answers == findings_answers(phantom)


def test_pool_gives_the_same_volumes_again(tmp_path, volumes, monkeypatch):
    monkeypatch.setattr("monai_medpruner.training.findings_volumes._VOLUMES_PER_FILE", 2)
    first = findings_pool(tmp_path, 0, 2, SETTINGS, SIDE)
    monkeypatch.setattr("monai_medpruner.training.findings_volumes.generate_findings", None)
    again = findings_pool(tmp_path, 0, 2, SETTINGS, SIDE)
    for one, two, expected in zip(first, again, volumes, strict=False):
        np.testing.assert_array_equal(one.slices, two.slices)
        np.testing.assert_array_equal(two.slices, expected.slices)
        assert one.captions == two.captions == expected.captions


def test_random_tokens():
    shown = np.zeros((8, 36), dtype=bool)
    keep = random_tokens(np.random.default_rng(0), shown, 0.05)
    assert keep.shape == shown.shape
    assert keep.sum() == round(0.05 * 288)
    counts = sum(random_tokens(np.random.default_rng(seed), shown, 0.05).astype(int) for seed in range(400))
    assert counts.mean() == pytest.approx(20, abs=1)
    assert counts.max() < 45


def test_oracle_tokens_keep_all_findings_where_they_fit(volumes):
    for volume in volumes:
        keep = oracle_tokens(np.random.default_rng(0), volume.areas, 0.2)
        assert keep.sum() == round(0.2 * keep.size)
        assert keep[volume.shown].all()
        # the rest lies beside findings before it lies anywhere else
        beside = {
            (int(index), row * SIDE + column)
            for index, token in np.argwhere(volume.shown)
            for row in range(max(token // SIDE - 1, 0), min(token // SIDE + 2, SIDE))
            for column in range(max(token % SIDE - 1, 0), min(token % SIDE + 2, SIDE))
        }
        kept = {(int(index), int(token)) for index, token in np.argwhere(keep)}
        assert kept <= beside or beside <= kept


def test_oracle_tokens_keep_each_finding_where_not_all_fit():
    areas = np.zeros((2, 3, 36))
    areas[0, 0, :20] = 0.9
    areas[1, 1, 5] = 0.02
    areas[1, 2, 30] = 0.01
    keep = oracle_tokens(np.random.default_rng(0), areas, 3 / 72)
    assert keep.sum() == 3
    assert keep[1, 5]
    assert keep[1, 30]
    assert keep[0, :20].sum() == 1


def test_kept_slices_leave_out_slices_without_tokens(network, volumes):
    (encoded,) = encode_findings(network, volumes[:1])
    keep = np.zeros_like(volumes[0].shown)
    keep[2, [3, 7]] = keep[5, 35] = True
    pruned, indices = kept_slices(encoded, keep)
    assert indices == [2, 5]
    assert torch.equal(pruned.tokens[0], encoded.rows[0][2, [3, 7]].float())
    assert torch.equal(pruned.tokens[1], encoded.rows[0][5, [35]].float())
    assert [layer[1].shape for layer in pruned.deepstack_features] == [(1, 128)] * (len(encoded.rows) - 1)
    assert [record.keep.nonzero().flatten().tolist() for record in pruned.records] == [[3, 7], [35]]


def test_answer_batches_show_the_findings(network, volumes):
    encoded = encode_findings(network, volumes)
    batches = FindingsAnswerBatches(network, encoded, 3, random_fraction=0.0, **PLAN)
    batch = batches[0]
    assert batch["questions"] == 3
    assert len(batch["texts"]) == len(batch["answers"]) == 9
    reports = {volume.report: volume for volume in volumes}
    start = 0
    for first in range(0, 9, 3):
        volume = reports[batch["answers"][first]]
        assert all(answer in volume.answers.values() for answer in batch["answers"][first + 1 : first + 3])
        kept = 0
        while kept < volume.shown.sum():
            kept += int(batch["encoded"].records[start].keep.sum())
            start += 1
    again = FindingsAnswerBatches(network, encoded, 3, random_fraction=0.0, **PLAN)[0]
    assert again["texts"] == batch["texts"]
    assert again["answers"] == batch["answers"]


def test_largest_share_grows_to_all_tokens(network, volumes):
    encoded = encode_findings(network, volumes)
    batches = FindingsAnswerBatches(network, encoded, 3, random_fraction=1.0, **PLAN)
    counts = {}
    for epoch in (1, 5):
        batches.epoch = epoch
        kept = [sum(int(one.keep.sum()) for one in batches[step]["encoded"].records) for step in (0, 1)]
        counts[epoch] = np.array(kept) / 3 / volumes[0].shown.size
    np.testing.assert_allclose(counts[1], 0.05, atol=0.005)
    assert counts[5].max() > 0.1


def test_answers_train_the_language_model_alone(network, volumes):
    encoded = encode_findings(network, volumes)
    answering = AnswerNetwork(network)
    batch = FindingsAnswerBatches(network, encoded, 1, random_fraction=0.0, **PLAN)[0]
    AnswerLoss()(answering(batch)).backward()
    moved = {name for name, parameter in answering.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(is_language(name) for name in moved)
    answering.zero_grad(set_to_none=True)


def test_exact_answers_are_those_of_greedy_decoding(network, volumes):
    """A few steps teach the answers of one volume; stock generation then writes what is counted as right."""
    encoded = encode_findings(network, volumes[:1])
    answering = AnswerNetwork(network)
    keep = oracle_tokens(np.random.default_rng(0), volumes[0].areas, 0.1)
    batches = FindingsAnswerBatches(network, encoded, 1, random_fraction=0.0, **{**PLAN, "closed_fraction": 0.0})
    optimizer = torch.optim.AdamW([one for _, one in answering.trained_parameters()], lr=3e-3)
    for step in range(30):
        batches.seed = step
        optimizer.zero_grad()
        AnswerLoss()(answering(batches[0])).backward()
        optimizer.step()
    rights = exact_answers(answering.eval(), encoded[0], keep)
    pruned, indices = kept_slices(encoded[0], keep)
    written = {}
    for kind in rights:
        text = prompt_text(network, FINDINGS_QUESTIONS[kind][0], (SIDE, SIDE), indices)
        ids = network.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        answer = PrunedVLM(network.model).generate(**ids, encoded=pruned, max_new_tokens=12, do_sample=False)
        new = network.tokenizer.decode(answer[0]).rsplit("assistant\n", 1)[-1]
        written[kind] = new.split(network.tokenizer.eos_token)[0] == volumes[0].answers[kind]
    assert rights == written
    assert any(rights.values())
