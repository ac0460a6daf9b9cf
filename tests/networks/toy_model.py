# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A vision-language model of somebody else: what the package knows nothing of."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from monai_medpruner.testing import TinyModel


class ToyConfig(PreTrainedConfig):
    model_type = "toy_slices"
    sub_configs_defaults = {"text_config": Qwen2Config}  # noqa: RUF012

    text_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 0
    patch_size: int = 16
    vision_size: int = 32
    vision_heads: int = 2


def eager_attention_forward(module, query, key, value):
    weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
    return weights @ value, weights


class ToyAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.vision_heads
        self.norm = nn.LayerNorm(config.vision_size)
        self.qkv = nn.Linear(config.vision_size, 3 * config.vision_size)

    def forward(self, hidden):
        query, key, value = self.qkv(self.norm(hidden)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended, _ = eager_attention_forward(self, query, key, value)
        return hidden + attended.transpose(1, 2).flatten(2)


class ToyForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Patches row by row; a token is the mean of two neighbors in a row."""

    config_class = ToyConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.vision_size, config.patch_size, config.patch_size)
        self.blocks = nn.ModuleList([ToyAttention(config) for _ in range(2)])
        size = config.text_config.hidden_size
        self.projector = nn.Sequential(nn.Linear(config.vision_size, size), nn.GELU(), nn.Linear(size, size))
        self.language_model = AutoModel.from_config(config.text_config)
        self.lm_head = nn.Linear(size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def pool(self, pixel_values):
        hidden = self.patches(pixel_values.to(self.dtype)).flatten(2).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        return hidden.unflatten(1, (-1, 2)).mean(2)

    def get_image_features(self, pixel_values, **kwargs):
        return BaseModelOutputWithPooling(pooler_output=list(self.projector(self.pool(pixel_values))))

    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        labels=None,
        use_cache=None,
        mm_encoder_outputs=None,
        **kwargs,
    ):
        embeddings = self.get_input_embeddings()(input_ids)
        outputs = mm_encoder_outputs or {}
        if pixel_values is not None:
            outputs = {"image": self.get_image_features(pixel_values)}
        if outputs:
            rows = torch.cat(list(outputs["image"].pooler_output)).to(embeddings.dtype)
            placeholders = (input_ids == self.config.image_token_id)[..., None]
            if placeholders.sum() != len(rows):
                raise ValueError("as many placeholders as visual tokens are needed")
            embeddings = embeddings.masked_scatter(placeholders, rows)
        hidden = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        logits = self.lm_head(hidden.last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config.text_config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=hidden.past_key_values)


AutoConfig.register(ToyConfig.model_type, ToyConfig)
AutoModelForImageTextToText.register(ToyConfig, ToyForConditionalGeneration)


def tiny_toy_config(vocab_size, token_ids):
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return ToyConfig(text_config=text, **token_ids)


TINY_TOY = TinyModel(
    model_type="toy_slices",
    tokens={"image_token_id": "<|image|>"},
    image="<|image|>",
    config=tiny_toy_config,
    image_processor=lambda: SiglipImageProcessorPil(size={"height": 64, "width": 128}),
)
