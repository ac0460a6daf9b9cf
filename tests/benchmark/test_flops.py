# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Operations from the configuration are those that torch counts while the model runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from monai_medpruner.benchmark.flops import decode_flops, encoder_flops, prefill_flops, scoring_flops
from monai_medpruner.bundles import open_checkpoint
from monai_medpruner.engines import TransformersEngine, VolumeQA
from monai_medpruner.errors import UnsupportedModelError
from monai_medpruner.networks import TransformersEncoder
from monai_medpruner.pruners import RandomTokensPruner, attention_received

FAMILIES = ("qwen3_vl", "gemma3", "video_llama_3")


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request):
    # eager attention is made of matrix products, which torch counts everywhere
    return open_checkpoint("tiny", device="cpu", attn_implementation="eager", tiny_model_type=request.param)


def counted(work):
    with FlopCounterMode(display=False) as counter:
        result = work()
    return counter.get_total_flops(), result


@torch.no_grad()
def test_encoder(checkpoint):
    encoder = TransformersEncoder(checkpoint)
    inputs = encoder.image_inputs(torch.rand(1, 120, 150, 3))
    family = checkpoint.family
    patches = [rows * columns * family.patches_per_token for rows, columns in family.token_grids(inputs)]
    flops, _ = counted(lambda: family.encode(inputs))
    ours = sum(encoder_flops(checkpoint.model.config, count) for count in patches)
    # torch also counts the products that make rotary angles
    assert ours == pytest.approx(flops, rel=5e-3)


def test_language_model(checkpoint):
    """The whole answer: the prompt, in two parts, and each further token from the token before it."""
    network = VolumeQA(
        TransformersEncoder(checkpoint, RandomTokensPruner(keep_ratio=0.5)),
        TransformersEngine(checkpoint, max_new_tokens=4),
    )
    study = network.encode(torch.rand(1, 120, 150, 3))
    parts = []
    decoder = checkpoint.model.get_decoder()
    handle = decoder.register_forward_pre_hook(
        lambda _, args, named: parts.append(named["inputs_embeds"].shape[1]), with_kwargs=True
    )
    flops, answer = counted(lambda: network.answer(study, "Is the liver enlarged?"))
    handle.remove()
    config = checkpoint.model.config
    beginning, rest, *further = parts
    assert beginning + rest == answer.prompt_tokens
    assert further == [1] * (answer.new_tokens - 1)
    assert further
    # the scores after the beginning are not needed, and not computed
    ours = prefill_flops(config, beginning) - score_flops(config, beginning) + prefill_flops(config, rest, beginning)
    ours += decode_flops(config, answer.prompt_tokens, answer.new_tokens)
    assert ours == pytest.approx(flops, rel=5e-3)


def score_flops(config, tokens):
    """Operations of the scores that prefill_flops counts."""
    text = config.get_text_config()
    scored = tokens if config.model_type == "video_llama_3" else 1
    return 2 * scored * text.hidden_size * text.vocab_size


def test_scoring():
    patches, heads, size = 48, 4, 8
    width = heads * size
    hidden, weights = torch.randn(patches, width), torch.randn(2 * width, width)

    def score():
        query, key = (hidden @ weights.T).view(patches, 2, heads, size).permute(1, 2, 0, 3)
        return attention_received(query, key)

    class Config:
        class vision_config:
            hidden_size = width

    assert scoring_flops(Config, patches) == counted(score)[0]


def test_other_models_are_refused():
    checkpoint = open_checkpoint("tiny", device="cpu", tiny_model_type="internvl")
    config = checkpoint.model.config
    with pytest.raises(UnsupportedModelError, match="internvl"):
        encoder_flops(config, 16)
