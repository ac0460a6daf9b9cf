# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Positions, masks and token layout of the stock models, computed without the code of the families.

The masking oracle itself is :mod:`monai_medpruner.testing.masking_oracle`.
"""

from __future__ import annotations

import torch

from monai_medpruner import testing
from monai_medpruner.networks.families import family_of
from monai_medpruner.testing.masking_oracle import additive, original_positions, renumbered_positions


def masked_logits(model, inputs, keep, new_ids=None, positions=None):
    """Return the oracle's logits; ``positions`` computes the positions, None takes that of this file."""
    return testing.masked_logits(model, inputs, keep, new_ids, **_oracle(model, positions))


def masked_greedy(model, inputs, keep, count, positions=None):
    """Return the oracle's tokens ``(B, count)``."""
    return testing.masked_greedy(model, inputs, keep, count, **_oracle(model, positions))


def _oracle(model, positions):
    model_type = model.config.model_type
    return {"positions": positions or POSITIONS[model_type], "mask": MASKS.get(model_type)}


def mrope_positions(model, inputs, keep):
    """Return the two-dimensional positions of the stock model for the full prompt."""
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    return positions


def renumbered_mrope_positions(model, inputs, keep):
    """Return positions without gaps, equal in all dimensions."""
    return renumbered_positions(model, inputs, keep).expand(3, -1, -1)


def block_masks(model, ids, keep):
    """Gemma 3: attention is bidirectional within an image; a sliding layer attends only to the last kept tokens."""
    window = model.config.text_config.sliding_window
    full, sliding = [], []
    for tokens, kept in zip(ids.tolist(), keep.tolist(), strict=True):
        block, place, blocks, places = 0, 0, [], []
        for before, token, is_kept in zip([None, *tokens], tokens, kept, strict=False):
            visual = token == model.config.image_token_id
            block += visual and before != token
            blocks.append(block if visual else 0)
            # counted in kept tokens, as in the pruned model
            places.append(place)
            place += is_kept
        blocks, places, kept = (torch.tensor(one) for one in (blocks, places, kept))
        causal = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        together = (blocks[:, None] == blocks) & (blocks > 0)
        full.append((causal | together) & kept)
        sliding.append(full[-1] & (places[:, None] - places < window))
    return {"full_attention": additive(torch.stack(full)), "sliding_attention": additive(torch.stack(sliding))}


def consecutive_patches(model, grid):
    """The patches of a token are consecutive."""
    family = family_of(model)
    return torch.arange(grid[0] * grid[1] * family.patches_per_token).reshape(-1, family.patches_per_token)


def cell_patches(model, grid):
    """Gemma 3: the patches of a token form a square, whose side follows from the configuration."""
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    cell = side // round(model.config.mm_tokens_per_image**0.5)
    return torch.tensor(
        [
            [(row * cell + down) * side + column * cell + right for down in range(cell) for right in range(cell)]
            for row in range(grid[0])
            for column in range(grid[1])
        ]
    )


def windowed_patches(model, grid):
    """Qwen2.5-VL: the patches of a token are consecutive, and tokens are ordered by window."""
    vision = model.config.vision_config
    side = vision.window_size // vision.patch_size // vision.spatial_merge_size
    rows, columns = grid
    order = [
        row * columns + column
        for top in range(0, rows, side)
        for left in range(0, columns, side)
        for row in range(top, min(top + side, rows))
        for column in range(left, min(left + side, columns))
    ]
    return torch.tensor([[4 * order.index(token) + patch for patch in range(4)] for token in range(rows * columns)])


def shuffled_patches(model, grid):
    """InternVL: after the class token, the patches of a token form a 2 x 2 square."""
    rows, columns = grid
    return torch.tensor(
        [
            [1 + (2 * row + down) * 2 * columns + 2 * column + right for down in range(2) for right in range(2)]
            for row in range(rows)
            for column in range(columns)
        ]
    )


#: the positions of the pruned prompt, laid on the full one, by model_type
POSITIONS = {
    "gemma3": renumbered_positions,
    "internvl": renumbered_positions,
    "qwen2_5_vl": mrope_positions,
    "qwen2_vl": mrope_positions,
    "qwen3_vl": mrope_positions,
    "video_llama_3": renumbered_positions,
}
#: the other way to number the tokens, by what the family does
OTHER_POSITIONS = {renumbered_positions: original_positions, mrope_positions: renumbered_mrope_positions}
#: the attention mask, by model_type, where it is not the causal one
MASKS = {"gemma3": block_masks}
#: the patches of each token ``(N, n)``, by model_type, where they do not follow one another
PATCHES = {"gemma3": cell_patches, "internvl": shuffled_patches, "qwen2_5_vl": windowed_patches}
