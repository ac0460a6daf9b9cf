# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions that share one pass over a volume give the same logits and gradients as separate questions."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_medpruner.networks import PrunedVLM
from monai_medpruner.training import (
    NO_FINDING,
    AnswerBatches,
    AnswerLoss,
    AnswerNetwork,
    TrainingPhantom,
    untrained_network,
)
from monai_medpruner.training.answer_training import EncodedPhantom

TOKENS, EACH = 36, 3
ANSWERS = {"plane": "Axial", "phase": "Venous", "abnormality": "Hypodense lesion", "organ": "Liver"}


def encoded(number, slices, layers):
    generator = torch.Generator().manual_seed(number)
    empty = np.zeros((slices, TOKENS, 16), dtype=np.uint8)
    findings = np.full((slices, TOKENS), NO_FINDING)
    truth = TrainingPhantom(np.zeros((slices, 96, 96), dtype=np.uint8), empty, empty, findings, 0, 0, 0.0, ANSWERS)
    rows = [torch.randn(slices, TOKENS, 128, generator=generator).half() for _ in range(layers)]
    return EncodedPhantom(rows, torch.randn(slices, TOKENS, generator=generator), (6, 6), truth)


@pytest.mark.parametrize(("family", "layers"), [("qwen3_vl", 2), ("gemma3", 1), ("video_llama_3", 1)])
def test_shared_prefix_gives_the_same_logits_and_gradients(tmp_path, family, layers):
    network = untrained_network(family, str(tmp_path), device="cpu")
    # more tokens than Gemma's sliding window of 512
    phantoms = [encoded(number, slices, layers) for number, slices in enumerate((50, 56, 60))]
    shares = {
        "full_fraction": 0.0,
        "full_batch_size": 1,
        "min_slices": 0.7,
        "initial_max_slices": 1.0,
        "initial_epochs": 1,
    }
    shares |= {"growth_epochs": 1, "min_tokens": 0.3, "max_tokens": 0.5, "max_hard_negatives": 4}
    batch = AnswerBatches(network, phantoms, 3, EACH, **shares, steps=1, seed=0)[0]
    trained = AnswerNetwork(network).train()
    logits, labels = trained(batch)
    AnswerLoss()((logits, labels)).backward()
    parameters = dict(trained.trained_parameters())
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    trained.zero_grad(set_to_none=True)
    vlm, tokenizer = PrunedVLM(network.model), network.tokenizer
    image = vlm.family.image_token_id
    prompts = tokenizer(batch["texts"], add_special_tokens=False)["input_ids"]
    ends = [0, *accumulate(prompt.count(image) // TOKENS for prompt in prompts[::EACH])]
    for row, prompt in enumerate(prompts):
        volume = batch["encoded"].of_slices(range(ends[row // EACH], ends[row // EACH + 1]))
        answer = tokenizer(batch["answers"][row] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*prompt, *answer]])
        alone = vlm(encoded=volume, input_ids=ids, use_cache=False).logits[0, -len(answer) - 1 : -1]
        assert labels[row][labels[row] >= 0].tolist() == answer
        assert torch.allclose(logits[row][labels[row] >= 0], alone, atol=1e-4)
        (F.cross_entropy(alone, torch.tensor(answer), reduction="sum") / (labels >= 0).sum()).backward()
    for name, parameter in parameters.items():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-5 + 1e-4 * parameter.grad.abs().max())
