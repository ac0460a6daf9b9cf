# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The loss of the first training stage, and the lesion log-odds of its heads."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from monai_medpruner.training import FINDINGS, NO_FINDING, VisionWarmUp, WarmUpLoss, untrained_network

TOKENS, BLOCKS, CONFIDENT = 36, 16, 30.0


def labels(finding):
    """Labels of two slices: in one, a lesion fills token 7; the other has none."""
    lesion = torch.zeros(2, TOKENS, BLOCKS, dtype=torch.uint8)
    findings = torch.full((2, TOKENS), NO_FINDING)
    lesion[0, 7], findings[0, 7] = BLOCKS, finding
    classes = {"finding": [finding, NO_FINDING], "plane": [0, 2], "phase": [1, 1]}
    organs = torch.arange(2 * TOKENS * BLOCKS).view(2, TOKENS, BLOCKS).remainder(15).to(torch.uint8)
    label = {
        "findings": findings,
        "organ_blocks": organs,
        "lesion_blocks": lesion,
        "background_weight": torch.tensor(0.7),
    }
    return {**label, **{name: torch.tensor(value) for name, value in classes.items()}}


def correct_logits(label):
    """Confident, correct logits."""
    finding = int(label["finding"][0])
    filled = torch.full((2, TOKENS, BLOCKS, 2), -CONFIDENT)
    filled[0, 7, :, int(FINDINGS[finding][2] == "hyperdense")] = CONFIDENT
    shown = (label["finding"] != NO_FINDING).float() * 2 - 1
    sizes = {"findings": NO_FINDING + 1, "finding": NO_FINDING + 1, "plane": 3, "phase": 3}
    logits = {name: CONFIDENT * one_hot(label[name], size).float() for name, size in sizes.items()}
    logits["organ_blocks"] = CONFIDENT * one_hot(label["organ_blocks"].long(), 15).float().flatten(2)
    logits["presence"] = CONFIDENT * shown[:, None, None].expand(2, TOKENS, 1)
    return {**logits, "lesion_blocks": filled.flatten(2)}


@pytest.mark.parametrize("finding", range(NO_FINDING))
def test_loss_is_zero_for_correct_logits_and_large_for_each_wrong_one(finding):
    label = labels(finding)
    logits = correct_logits(label)
    assert WarmUpLoss(3.0)(logits, label) < 1e-6
    for name in logits:
        assert WarmUpLoss(3.0)({**logits, name: -logits[name]}, label) > 1
    # a hypodense lesion predicted as hyperdense, or vice versa
    swapped = logits["lesion_blocks"].unflatten(-1, (BLOCKS, 2)).flip(-1).flatten(2)
    assert WarmUpLoss(3.0)({**logits, "lesion_blocks": swapped}, label) > 1


def test_lesion_logits_are_the_log_odds_of_a_lesion(tmp_path):
    network = VisionWarmUp(untrained_network("gemma3", str(tmp_path), device="cpu"))
    rows = [torch.randn(2, TOKENS, 128, generator=torch.Generator().manual_seed(0))]
    probability = network.token_heads["findings"](network.token_norm(rows[0])).softmax(-1)
    lesion = probability[..., :NO_FINDING].sum(-1)
    assert torch.allclose(network.lesion_logits(rows), (lesion / (1 - lesion)).log(), atol=1e-4)
