# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the second stage shows of a phantom."""

from __future__ import annotations

import numpy as np
import torch

from monai_medpruner.training import NO_FINDING, AnswerBatches, TrainingPhantom, untrained_network
from monai_medpruner.training.answer_training import EncodedPhantom

SLICES, TOKENS, SUSPECTS = 10, 36, 8


def encoded(seed, findings):
    empty = np.zeros((SLICES, TOKENS, 16), dtype=np.uint8)
    answers = {"plane": "Axial", "phase": "Venous", "abnormality": "No lesion"}
    truth = TrainingPhantom(np.zeros((SLICES, 96, 96), dtype=np.uint8), empty, empty, findings, 0, 0, 20.0, answers)
    generator = torch.Generator().manual_seed(seed)
    suspicion = torch.randn(SLICES, TOKENS, generator=generator)
    # each token tells which one it is
    rows = torch.arange(SLICES * TOKENS).view(SLICES, TOKENS, 1).expand(-1, -1, 4).half()
    return EncodedPhantom([rows], suspicion, (6, 6), truth)


def batches(tmp_path, phantom):
    network = untrained_network("gemma3", str(tmp_path), device="cpu")
    # every slice, one token of each by chance
    shares = {"whole_share": 0.0, "whole_size": 1, "least_slices": 1.0, "first_slices": 1.0}
    shares |= {"short_epochs": 1, "growing_epochs": 1, "least_tokens": 0.0, "most_tokens": 0.0}
    return AnswerBatches(network, [phantom], 1, 1, **shares, most_suspects=SUSPECTS, steps=60, seed=0)


def test_healthy_volumes_show_what_looks_most_like_a_lesion(tmp_path):
    phantom = encoded(0, np.full((SLICES, TOKENS), NO_FINDING))
    order = phantom.suspicion.flatten().argsort(descending=True)
    drawn, shown = batches(tmp_path, phantom), []
    for step in range(60):
        batch = drawn[step]
        kept = torch.stack(batch["encoded"].keep).flatten()
        # the most suspicious ones, as far as they are there without a gap; the others are the tokens drawn by chance
        leading = int(kept[order].long().cumprod(0).sum())
        assert kept.sum() - leading <= SLICES
        shown.append(leading)
        tokens = torch.cat(batch["encoded"].tokens)
        assert tokens[:, 0].tolist() == kept.nonzero()[:, 0].tolist()
    assert max(shown) >= SUSPECTS
    assert min(shown) <= 2


def test_the_lesion_is_always_shown(tmp_path):
    findings = np.full((SLICES, TOKENS), NO_FINDING)
    findings[4, [7, 8, 13]] = 2
    phantom = encoded(1, findings)
    phantom.suspicion[4, [7, 8, 13]] = -10.0
    drawn = batches(tmp_path, phantom)
    for step in range(10):
        assert drawn[step]["encoded"].keep[4][[7, 8, 13]].all()
