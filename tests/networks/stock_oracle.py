# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The independent check: the stock model on the full prompt, dropped tokens masked out of every layer's attention."""

from __future__ import annotations

import torch

from monai_medpruner.networks.families import family_of


def masked_logits(model, inputs, keep, new_ids=None):
    """Return the stock model's logits ``(B, L + n, vocabulary)`` on the full prompt and n new tokens.

    A token is seen by itself and by later tokens that are kept; dropped tokens and padding are seen by nobody else.
    """
    family = family_of(model)
    ids, positions = inputs["input_ids"], POSITIONS[model.config.model_type](model, inputs, keep)
    if new_ids is not None:
        keep = torch.cat([keep, torch.ones_like(new_ids, dtype=torch.bool)], 1)
        positions = torch.cat([positions, positions[..., -1:] + torch.arange(1, new_ids.shape[1] + 1)], -1)
        ids = torch.cat([ids, new_ids], 1)
    mask = MASKS.get(model.config.model_type, causal_mask)(model, ids, keep)
    images = {name: inputs[name] for name in family.image_inputs}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, position_ids=positions, **images, use_cache=False).logits


def masked_greedy(model, inputs, keep, count):
    """Return the tokens that greedy decoding gives under the same mask, ``(B, count)``, without any cache."""
    new_ids = torch.zeros(len(keep), 0, dtype=torch.long)
    for _ in range(count):
        logits = masked_logits(model, inputs, keep, new_ids)
        new_ids = torch.cat([new_ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return new_ids


def additive(seen):
    """Turn a bool mask ``(B, L, L)`` of who sees whom into what attention adds to its scores, ``(B, 1, L, L)``.

    Everyone sees itself, so that no row is empty.
    """
    seen = seen | torch.eye(seen.shape[-1], dtype=torch.bool)
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def causal_mask(model, ids, keep):
    """Every layer looks back at kept tokens."""
    return additive(torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril() & keep[:, None, :])


def mrope_positions(model, inputs, keep):
    """The two-dimensional positions that the stock model gives the full prompt."""
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    return positions


def renumbered_positions(model, inputs, keep):
    """Kept tokens counted without gaps."""
    return (keep.cumsum(1) - 1).clamp(min=0)


#: the positions of the pruned prompt, laid on the full one, by model_type
POSITIONS = {"qwen3_vl": mrope_positions, "video_llama_3": renumbered_positions}
#: the attention mask, by model_type, where it is not the causal one
MASKS = {}
