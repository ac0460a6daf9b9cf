# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Show a caller's own functions the caller's prompt, while generation runs on the pruned one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

__all__ = ["CallersPrompt"]


class CallersPrompt:
    """Replaces the pruned prompt by the caller's in what the caller's functions are given during generation.

    Most published stopping criteria, logits processors and prefix functions cut the prompt off by its length.

    Args:
        ids: the caller's prompts, ``(B, L)``.
        pruned_length: length L' of the pruned prompts.
    """

    def __init__(self, ids: torch.Tensor, pruned_length: int) -> None:
        self.ids = ids
        self.pruned_length = pruned_length

    def sequences(self, pruned: torch.Tensor) -> torch.Tensor:
        """Return the caller's prompts followed by the new tokens.

        Args:
            pruned: the pruned prompts followed by T new tokens, ``(B * n, L' + T)``, n beams or sequences a prompt.

        Returns:
            ``(B * n, L + T)``.
        """
        prompts = self.ids.repeat_interleave(len(pruned) // len(self.ids), dim=0)
        return torch.cat([prompts, pruned[:, self.pruned_length :]], dim=1)

    def adapt(self, arguments: dict[str, Any]) -> None:
        """Wrap the caller's functions among the arguments of ``generate``, in place."""
        if (criteria := arguments.get("stopping_criteria")) is not None:
            arguments["stopping_criteria"] = StoppingCriteriaList(_Criterion(self, one) for one in _listed(criteria))
        if (processors := arguments.get("logits_processor")) is not None:
            arguments["logits_processor"] = LogitsProcessorList(_Processor(self, one) for one in _listed(processors))
        if (allowed := arguments.get("prefix_allowed_tokens_fn")) is not None:
            arguments["prefix_allowed_tokens_fn"] = self._prefix_function(allowed)
        if (streamer := arguments.get("streamer")) is not None:
            arguments["streamer"] = _Streamer(self, streamer)

    def _prefix_function(self, allowed: Callable[[int, torch.Tensor], list[int]]) -> Callable:
        def with_callers_prompt(batch_id: int, ids: torch.Tensor) -> list[int]:
            return allowed(batch_id, torch.cat([self.ids[batch_id], ids[self.pruned_length :]]))

        return with_callers_prompt


class _Criterion(StoppingCriteria):
    """A caller's stopping criterion on the caller's sequences."""

    def __init__(self, prompt: CallersPrompt, criterion: Callable) -> None:
        self.prompt = prompt
        self.criterion = criterion

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> Any:
        return self.criterion(self.prompt.sequences(input_ids), scores, **kwargs)


class _Processor(LogitsProcessor):
    """A caller's logits processor on the caller's sequences."""

    def __init__(self, prompt: CallersPrompt, processor: Callable) -> None:
        self.prompt = prompt
        self.processor = processor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        return self.processor(self.prompt.sequences(input_ids), scores)


class _Streamer:
    """A caller's streamer, which is given the caller's prompt first, as by the stock model."""

    def __init__(self, prompt: CallersPrompt, streamer: Any) -> None:
        self.prompt = prompt
        self.streamer = streamer
        self.begins = True

    def put(self, value: torch.Tensor) -> None:
        self.streamer.put(self.prompt.ids.cpu() if self.begins else value)
        self.begins = False

    def end(self) -> None:
        self.streamer.end()


def _listed(functions: Any) -> Iterable[Callable]:
    """The functions of a list, or the only one."""
    return [functions] if callable(functions) and not isinstance(functions, (list, tuple)) else functions
