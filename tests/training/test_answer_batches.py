# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Tokens that the second training stage includes."""

from __future__ import annotations

import numpy as np
import torch

from monai_medpruner.training import NO_FINDING, AnswerBatches, TrainingPhantom, untrained_network
from monai_medpruner.training.answer_training import EncodedPhantom

SLICES, TOKENS, HARD_NEGATIVES = 10, 36, 8


def encoded(seed, findings):
    empty = np.zeros((SLICES, TOKENS, 16), dtype=np.uint8)
    answers = {"plane": "Axial", "phase": "Venous", "abnormality": "No lesion"}
    truth = TrainingPhantom(np.zeros((SLICES, 96, 96), dtype=np.uint8), empty, empty, findings, 0, 0, 20.0, answers)
    generator = torch.Generator().manual_seed(seed)
    lesion_logits = torch.randn(SLICES, TOKENS, generator=generator)
    # the value of each token is its index
    rows = torch.arange(SLICES * TOKENS).view(SLICES, TOKENS, 1).expand(-1, -1, 4).half()
    return EncodedPhantom([rows], lesion_logits, (6, 6), truth)


def batches(tmp_path, phantom):
    network = untrained_network("gemma3", str(tmp_path), device="cpu")
    # all slices, with one random token each
    shares = {"full_fraction": 0.0, "full_batch_size": 1, "min_slices": 1.0, "initial_max_slices": 1.0}
    shares |= {"initial_epochs": 1, "growth_epochs": 1, "min_tokens": 0.0, "max_tokens": 0.0}
    return AnswerBatches(network, [phantom], 1, 1, **shares, max_hard_negatives=HARD_NEGATIVES, steps=60, seed=0)


def test_healthy_volumes_include_tokens_with_high_lesion_logits(tmp_path):
    phantom = encoded(0, np.full((SLICES, TOKENS), NO_FINDING))
    order = phantom.lesion_logits.flatten().argsort(descending=True)
    drawn, shown = batches(tmp_path, phantom), []
    for step in range(60):
        batch = drawn[step]
        kept = torch.stack(batch["encoded"].keep).flatten()
        # length of the gapless run of tokens with the highest logits; all others are random tokens
        leading = int(kept[order].long().cumprod(0).sum())
        assert kept.sum() - leading <= SLICES
        shown.append(leading)
        tokens = torch.cat(batch["encoded"].tokens)
        assert tokens[:, 0].tolist() == kept.nonzero()[:, 0].tolist()
    assert max(shown) >= HARD_NEGATIVES
    assert min(shown) <= 2


def test_lesion_tokens_are_always_included(tmp_path):
    findings = np.full((SLICES, TOKENS), NO_FINDING)
    findings[4, [7, 8, 13]] = 2
    phantom = encoded(1, findings)
    phantom.lesion_logits[4, [7, 8, 13]] = -10.0
    drawn = batches(tmp_path, phantom)
    for step in range(10):
        assert drawn[step]["encoded"].keep[4][[7, 8, 13]].all()
