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


def masked_logits(model, inputs, keep, new_ids=None):
    """Return the stock model's logits ``(B, L + n, vocabulary)`` on the full prompt and n new tokens.

    A token is seen by itself and by later tokens that are kept; dropped tokens and padding are seen by nobody else.
    """
    ids, positions, images = inputs["input_ids"], stock_positions(model, inputs), image_inputs(inputs)
    if new_ids is not None:
        count = new_ids.shape[1]
        ids = torch.cat([ids, new_ids], 1)
        keep = torch.cat([keep, torch.ones_like(new_ids, dtype=torch.bool)], 1)
        later = positions[..., -1:] + torch.arange(1, count + 1)
        positions = torch.cat([positions, later], -1)
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (causal & keep[:, None, :]) | torch.eye(length, dtype=torch.bool)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, position_ids=positions, **images, use_cache=False).logits


def masked_greedy(model, inputs, keep, count):
    """Return the tokens that greedy decoding gives under the same mask, ``(B, count)``, without any cache."""
    new_ids = torch.zeros(len(keep), 0, dtype=torch.long)
    for _ in range(count):
        logits = masked_logits(model, inputs, keep, new_ids)
        new_ids = torch.cat([new_ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return new_ids


def stock_positions(model, inputs):
    """The position ids that the stock model gives the full prompt."""
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    return positions


def image_inputs(inputs):
    """The entries that the vision encoder reads."""
    return {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
