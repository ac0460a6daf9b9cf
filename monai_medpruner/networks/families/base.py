# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a model family says of itself: geometry, scoring layer, positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from monai_medpruner.errors import SettingsError, UnsupportedModelError

__all__ = [
    "EncodedSlices",
    "FamilySummary",
    "ModelFamily",
]


@dataclass
class EncodedSlices:
    """The vision encoder's output for S slices; lists hold one tensor per slice, of N_i tokens each.

    Args:
        tokens: projected tokens, ``(N_i, C)``.
        deepstack_features: DeepStack rows that go with each token, one list per layer, ``(N_i, C)``; empty where the
            family has none.
        encoder_tokens: tokens before projection, ``(N_i, E)``, what :meth:`ModelFamily.project` takes.
    """

    tokens: list[torch.Tensor]
    deepstack_features: list[list[torch.Tensor]]
    encoder_tokens: list[torch.Tensor]


@dataclass(frozen=True)
class FamilySummary:
    """What the table of supported models says of a family, in a few words each.

    Args:
        serves: the models by the names their makers give them.
        merge: which patches form one token of the language model.
        positions: which positions the kept tokens have.
        scored_layer: which block of the vision encoder scores the tokens.
        deepstack_features: what else goes with each token.
    """

    serves: str
    merge: str
    positions: str
    scored_layer: str
    deepstack_features: str = "none"


class ModelFamily(ABC):
    """One family of stock Hugging Face vision-language models.

    An instance belongs to one model and changes nothing in it. A slice is one image to the model. The tokens of a slice
    are numbered as the model's prompt holds them.

    Args:
        model: a stock model, in whose configuration ``model_type`` is one of :attr:`model_types`.
    """

    #: values of ``config.model_type`` that this family serves
    model_types: ClassVar[tuple[str, ...]]
    #: its row in the table of supported models
    summary: ClassVar[FamilySummary]
    #: names of the inputs that hold the images; they never reach the language model
    image_inputs: ClassVar[tuple[str, ...]]
    #: inputs with one entry per prompt token, and what padding holds
    token_inputs: ClassVar[dict[str, int]] = {}
    #: whether kept tokens keep their positions of the unpruned prompt where the caller does not say
    preserves_position_ids: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel) -> None:
        # the attributes of a family's modules are its own: no type that all models share knows them
        self.model: Any = model

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder that stands for one visual token in the prompt."""
        return self.model.config.image_token_id

    def image_marker(self, tokenizer: Any) -> str:
        """What the chat template writes for an image, to be replaced by :meth:`image_text`."""
        return tokenizer.convert_ids_to_tokens(self.image_token_id)

    def image_text(self, tokenizer: Any, tokens: int) -> str:
        """Text of an image of that many visual tokens."""
        return tokenizer.convert_ids_to_tokens(self.image_token_id) * tokens

    def image_size_for(self, image_processor: Any, tokens: int) -> dict[str, Any]:
        """Arguments with which an image processor gives a slice at most that many tokens.

        Raises:
            SettingsError: the family's images have a fixed number of tokens.
        """
        raise SettingsError(
            f"{type(self).__name__} cannot keep a token budget: its images have a fixed number of tokens. Leave out "
            "token_budget; max_slices limits the number of slices"
        )

    def token_types(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the model's processor puts into :attr:`token_inputs` for some ids: 1 at visual tokens, else 0."""
        return {name: (input_ids == self.image_token_id).long() for name in self.token_inputs}

    @property
    def pad_token_id(self) -> int:
        """Id that fills the prompt where it is padded; masked, and never the image placeholder."""
        pad = self.model.config.get_text_config().pad_token_id
        return pad if isinstance(pad, int) else int(self.image_token_id == 0)

    @property
    @abstractmethod
    def attention_blocks(self) -> Sequence[Any]:
        """The attention modules of the vision encoder's blocks, from the first to the last."""

    @property
    def whole_slice_blocks(self) -> Sequence[int]:
        """Indices of the blocks that attend to the whole slice; by default all."""
        return range(len(self.attention_blocks))

    @property
    def scoring_attention(self) -> Any:
        """The attention module that scores the tokens: that of the last block that attends to the whole slice.

        Raises:
            UnsupportedModelError: no block does.
        """
        if not self.whole_slice_blocks:
            raise UnsupportedModelError(
                f"none of the {len(self.attention_blocks)} blocks of the vision encoder attends to a whole slice: its "
                "tokens cannot be scored"
            )
        return self.attention_blocks[self.whole_slice_blocks[-1]]

    def attention_block(self, block: int | float | None) -> Any:
        """The attention module of a block; of the scoring layer where the index is None.

        Args:
            block: index of the block, counted from 0; negative ones count from the last. A number above 0 and below 1
                is a share of the depth; of the blocks that attend to the whole slice, it takes the nearest.

        Raises:
            SettingsError: there is no such block, or it attends within windows.
            UnsupportedModelError: no block attends to the whole slice.
        """
        if block is None or not self.whole_slice_blocks:
            return self.scoring_attention
        count = len(self.attention_blocks)
        if isinstance(block, float):
            wanted = round(block * count) - 1
            return self.attention_blocks[min(self.whole_slice_blocks, key=lambda index: abs(index - wanted))]
        if not -count <= block < count:
            raise SettingsError(f"the vision encoder has {count} blocks, and none has the index {block}")
        if block % count not in self.whole_slice_blocks:
            raise SettingsError(
                f"block {block} of the vision encoder attends within windows, so it does not relate the patches of a "
                f"whole slice; the blocks that do are {list(self.whole_slice_blocks)}"
            )
        return self.attention_blocks[block]

    def hidden_states(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The input of a block's attention, from the arguments of its forward.

        Returns:
            Per slice ``(M_i, E)``, in the order of :meth:`queries_and_keys`, without class tokens. By default the
            rows of the first argument are the slices.
        """
        return list(args[0] if args else kwargs["hidden_states"])

    @abstractmethod
    def queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Recompute queries and keys of a block's attention from the arguments of its forward.

        Args:
            attention: the module, one of :attr:`attention_blocks`.
            args: positional arguments.
            kwargs: named arguments.

        Returns:
            Per slice a pair of shape ``(heads, M_i, d)``, M_i being the slice's patches, in an order in which
            :meth:`group_patches` finds the patches of one token; class tokens are left out.
        """

    def class_queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Recompute the class token's query and all keys of a block; arguments as in :meth:`queries_and_keys`.

        Returns:
            Per slice the query ``(heads, 1, d)`` and the keys ``(heads, 1 + M_i, d)``, the class token's own first.

        Raises:
            SettingsError: the encoder has no class token.
        """
        raise SettingsError(
            f"the vision encoder of {self.model.config.model_type} has no class token, so a pruner that needs "
            "ClassAttention cannot be used with it"
        )

    @abstractmethod
    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Turn ``(..., M)`` per-patch values into ``(..., N, patches_per_token)``, token by token."""

    @property
    @abstractmethod
    def patches_per_token(self) -> int:
        """Patches that form one token of the language model."""

    def patches_per_token_in(self, inputs: dict[str, Any]) -> int:
        """Patches that form one token of these inputs.

        :attr:`patches_per_token`, except where the image processor and not the model decides how many are merged.
        """
        return self.patches_per_token

    @abstractmethod
    def token_grids(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        """Rows and columns of each slice's tokens, slice by slice."""

    @abstractmethod
    def slice_inputs(self, inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        """The image inputs of slices ``start`` to ``stop`` alone."""

    def inside_inputs(self, inputs: dict[str, Any], inside: Sequence[torch.Tensor]) -> dict[str, Any]:
        """The image inputs without the patches of some tokens, for :meth:`encode`.

        Positions, windows and segments are those that the patches have in the whole slices. By default refused.

        Args:
            inputs: the image inputs of some slices.
            inside: per slice, bool ``(N_i,)`` on the CPU: which tokens are left, at least one.

        Raises:
            SettingsError: the encoder needs whole slices.
        """
        raise SettingsError(
            f"the vision encoder of {self.model.config.model_type} takes whole slices, so patches beside the body "
            "cannot be left out: use crop=body, or none"
        )

    def inside_patches(self, inside: torch.Tensor, grid: tuple[int, int], patches_per_token: int) -> torch.Tensor:
        """Where the encoder's patches of :meth:`inside_inputs` lie among those of the whole slice, in their order.

        Args:
            inside: bool ``(N,)`` on the CPU, of one slice.
            grid: rows and columns of its tokens.
            patches_per_token: patches that form one token.

        Returns:
            int64, ascending, in the order in which :meth:`group_patches` takes the patches.
        """
        return inside.repeat_interleave(patches_per_token).nonzero().flatten()

    @abstractmethod
    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        """Run the vision encoder and the projector of the stock model on some slices."""

    @abstractmethod
    def project(self, encoder_tokens: torch.Tensor) -> torch.Tensor:
        """Project tokens ``(K, E)`` that were merged before the projector; ``(K, C)``."""

    @abstractmethod
    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """Pack pruned tokens, one tensor per slice, as the model takes them in ``mm_encoder_outputs``."""

    def positions(
        self,
        inputs: dict[str, Any],
        grids: list[tuple[int, int]],
        order: torch.Tensor,
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        """The positions that the tokens of the pruned prompt have in the unpruned one.

        By default the language model's positions are one-dimensional. The result has the shape of the model's position
        ids, so that renumbered ones can take its place.

        Args:
            inputs: the caller's unpruned inputs, ids of shape ``(B, L)``.
            grids: rows and columns of each slice's tokens before pruning.
            order: int64 ``(B, L')``, the column of the caller's prompt that each pruned column holds.
            attention_mask: int64 ``(B, L')``, 0 at padding.

        Returns:
            int64 ``(..., B, L')``, 0 at padding.
        """
        return (inputs["attention_mask"].cumsum(-1) - 1).gather(1, order) * attention_mask

    @property
    def vision_configs(self) -> list[Any]:
        """Configurations whose attention implementation may be replaced by a packed one while encoding."""
        return []
