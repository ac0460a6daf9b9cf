# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Generation from a pruned prompt: length limits, the time of the first token, and follow-up turns."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from transformers import StoppingCriteria

from monai_medpruner.errors import PromptError
from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.results import synchronize

__all__ = ["CachedPrompt", "FirstStepClock", "shift_length_limits"]


@dataclass
class CachedPrompt:
    """The pruned prompt and answer whose keys and values are in a cache.

    Args:
        sequences: the unpruned prompt and the answer, ``(B, L)``.
        keep: bool ``(B, L)``, the tokens that reached the language model.
        pruned: per-token inputs of the language model for the kept tokens, ``(…, B, L')``.
    """

    sequences: torch.Tensor
    keep: torch.Tensor
    pruned: dict[str, torch.Tensor]

    @classmethod
    def of_answer(
        cls, family: ModelFamily, pruned: Mapping[str, Any], keep: torch.Tensor, sequences: torch.Tensor
    ) -> CachedPrompt:
        """Create the entry for a pruned prompt and its generated answer.

        Args:
            family: model family, which names the per-token inputs.
            pruned: inputs of the language model for the prompt.
            keep: bool mask over the unpruned prompt.
            sequences: the unpruned prompt and the answer.
        """
        answer = sequences[:, keep.shape[1] :]
        names = ("input_ids", "attention_mask", "position_ids", *family.token_inputs)
        entries = {name: pruned[name] for name in names if name in pruned}
        prompt = cls(sequences[:, : keep.shape[1]], keep, entries)
        return cls(sequences, prompt.keep_with(answer), prompt.followed_by(answer, torch.ones_like(answer)))

    def follow_up(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
        """Return the inputs of the language model for a follow-up turn, and the mask of kept tokens.

        Args:
            inputs: checked inputs of the whole conversation. Its images are in the cache and are not encoded again.

        Raises:
            PromptError: the conversation does not begin with the sequences in the cache.
        """
        ids, length = inputs["input_ids"], self.sequences.shape[1]
        if ids.shape[0] != len(self.sequences) or not torch.equal(ids[:, :length], self.sequences):
            raise PromptError(
                "input_ids do not begin with the prompt and the answer that are in the cache: pass the sequences that "
                "generate returned, followed by the new turn"
            )
        turn, mask = ids[:, length:], inputs["attention_mask"][:, length:]
        return self.followed_by(turn, mask), self.keep_with(turn) & inputs["attention_mask"].bool()

    def keep_with(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the mask of kept tokens, extended by text tokens."""
        return torch.cat([self.keep, torch.ones_like(ids, dtype=torch.bool)], dim=1)

    def followed_by(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the inputs of the language model, extended by text. Positions continue from the last one."""
        counted = mask.cumsum(-1)
        further = {"input_ids": ids, "attention_mask": mask}
        result = {}
        for name, value in self.pruned.items():
            if name == "position_ids":
                tail = value[..., -1:] + counted.expand(*value.shape[:-1], -1)
            else:
                tail = further.get(name, torch.zeros_like(ids))
            result[name] = torch.cat([value, tail.to(value.dtype)], dim=-1)
        return result


class FirstStepClock(StoppingCriteria):
    """Notes the time at which the first token is generated; never stops the generation.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first_step = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Return False for every sequence, bool ``(B,)``."""
        if not self.first_step:
            synchronize(self.device)
            self.first_step = perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def shift_length_limits(arguments: dict[str, Any], dropped: int) -> None:
    """Adapt ``max_length`` and ``min_length``, which count the caller's prompt, to the pruned prompt, in place.

    Args:
        arguments: of the model's ``generate``; a ``generation_config`` among them is replaced by a copy.
        dropped: number of tokens by which the prompt is shorter.
    """
    config = arguments.get("generation_config")
    if config is not None:
        arguments["generation_config"] = config = copy(config)
    for name in ("max_length", "min_length"):
        if arguments.get(name) is not None:
            arguments[name] = max(arguments[name] - dropped, 1)
        if config is not None and getattr(config, name, None):
            setattr(config, name, max(getattr(config, name) - dropped, 1))
