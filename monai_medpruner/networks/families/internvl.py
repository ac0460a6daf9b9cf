# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""InternVL: a class token before the patches, and a pixel shuffle that makes tokens of squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from monai_medpruner.errors import UnsupportedModelError
from monai_medpruner.networks.families.base import EncodedSlices, FamilySummary, ModelFamily
from monai_medpruner.networks.families.patch_layout import square_cells

__all__ = ["InternVLFamily"]


class InternVLFamily(ModelFamily):
    """InternVL in its Hugging Face form (``InternVLForConditionalGeneration``, checkpoints named ``-hf``).

    Checkpoints whose ``model_type`` is ``internvl_chat`` bring code of their own and are not served.

    Every slice is a square of one size; its patches lie row by row behind a class token, and a token is a square of
    them. The class token is none of the slice's patches: attention from it and to it is left out of the scores, so that
    they say how the patches share their attention among themselves. The language model's positions are
    one-dimensional, so kept tokens are renumbered.

    A tile is a slice to this family. The image processor by itself makes one tile of an image; with
    ``crop_to_patches`` each tile of an image is pruned for itself.
    """

    model_types = ("internvl",)
    summary = FamilySummary(
        serves="InternVL3 in Hugging Face form (-hf)",
        merge="2×2 pixel shuffle; class token left out",
        positions="renumbered",
        scored_layer="last",
    )
    image_inputs = ("pixel_values",)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        if (layer := self.model.config.vision_feature_layer) != -1:
            raise UnsupportedModelError(
                f"only InternVL models that read the vision encoder's last layer are supported, and this one's "
                f"vision_feature_layer is {layer}"
            )

    def image_text(self, tokenizer: Any, tokens: int) -> str:
        """Context tokens between begin and end of image."""
        return f"<img>{super().image_text(tokenizer, tokens)}</img>"

    @property
    def attention_blocks(self) -> Sequence[Any]:
        """The attention of each block."""
        return [layer.attention for layer in self.model.model.vision_tower.encoder.layer]

    @property
    def _side(self) -> int:
        """Patches along one side of a token's square."""
        return round(1 / self.model.config.downsample_ratio)

    @property
    def patches_per_token(self) -> int:
        """The area of a token's square."""
        return self._side**2

    def hidden_states(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """Of each slice of the batch without the class token."""
        return list((args[0] if args else kwargs["hidden_states"])[:, 1:])

    def queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Queries and keys of each slice of the batch without the class token."""
        hidden = (args[0] if args else kwargs["hidden_states"])[:, 1:]
        return list(zip(*_heads(attention, hidden, hidden), strict=True))

    def class_queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The class token is the first row."""
        hidden = args[0] if args else kwargs["hidden_states"]
        return list(zip(*_heads(attention, hidden[:, :1], hidden), strict=True))

    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Gather the squares of the raster."""
        return square_cells(patches, grid, self._side)

    def token_grids(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        """The same square for every slice."""
        pixels = inputs["pixel_values"]
        sides = zip(pixels.shape[-2:], self.model.config.vision_config.patch_size, strict=True)
        rows, columns = (size // patch // self._side for size, patch in sides)
        return [(rows, columns)] * len(pixels)

    def slice_inputs(self, inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        """One image is one row."""
        return {"pixel_values": inputs["pixel_values"][start:stop]}

    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        """Tokens, and the shuffled patches before the projector.

        The steps of the model's ``get_image_features``, which itself would leave hooks on every module of the encoder.
        """
        core = self.model.model
        rows, columns = self.token_grids(images)[0]
        patches = core.vision_tower(images["pixel_values"].to(core.dtype), return_dict=True).last_hidden_state[:, 1:]
        raster = patches.unflatten(1, (rows * self._side, columns * self._side))
        shuffled = core.pixel_shuffle(raster, scale_factor=self.model.config.downsample_ratio).flatten(1, 2)
        return EncodedSlices(tokens=list(self.project(shuffled)), deepstack_features=[], encoder_tokens=list(shuffled))

    def project(self, encoder_tokens: torch.Tensor) -> torch.Tensor:
        """The projector, token by token."""
        return self.model.model.multi_modal_projector(encoder_tokens)

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """One tensor ``(ΣK, 1, C)``: the model takes no list.

        Expansion for beams looks for the rows at which a prompt ends, and finds them only where every token is an entry
        of its own.
        """
        packed: dict[str, Any] = {"pooler_output": torch.cat(tokens)[:, None]}
        return BaseModelOutputWithPooling(**packed)


def _heads(attention: Any, queried: torch.Tensor, keyed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries ``(S, heads, Q, d)`` and keys ``(S, heads, K, d)`` of hidden states ``(S, Q, E)`` and ``(S, K, E)``."""
    query, key = attention.q_norm(attention.q_proj(queried)), attention.k_norm(attention.k_proj(keyed))
    split = (each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for each in (query, key))
    return next(split), next(split)
