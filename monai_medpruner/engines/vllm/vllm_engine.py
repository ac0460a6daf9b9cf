# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the engines on vLLM share: prompts, limits and answers. They differ in how a request reaches vLLM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from monai_medpruner.engines.answer_tokens import answer_limit, decoded_answer
from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.engines.generation_values import GREEDY
from monai_medpruner.engines.vllm.pruned_request import PrunedRequest, pruned_request
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint, EncodedStudy
from monai_medpruner.results import Answer, StageTimes

__all__ = ["Completion", "VLLMEngine"]

_QUESTIONS_AT_ONCE = 64
#: model types whose images vLLM takes as pruned slices
_IMAGE_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3")
#: model types whose whole prompt is handed over as embeddings, to the exported language model
_EMBEDDING_TYPES = ("video_llama_3",)


@dataclass(frozen=True)
class Completion:
    """What vLLM generated for a prompt.

    Args:
        ids: generated tokens.
        truncated: whether they ended at their limit.
        cached_tokens: tokens of the prompt that were found in the prefix cache.
        seconds: of "prefill" and "decode".
        logprobs: of each generated token, where asked for.
    """

    ids: Sequence[int]
    truncated: bool = False
    cached_tokens: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    logprobs: Sequence[float] = ()


class VLLMEngine(ABC):
    """Greedy decoding with vLLM, many questions at once.

    Slices are encoded and pruned on this side; vLLM loads the language model alone. It keeps the prompt's beginning for
    further questions about a study by its own prefix cache, keyed by the hashes of the slices' tokens.

    Args:
        checkpoint: of the model; its vision part, tokenizer and configuration are used, so ``parts="vision"`` serves.
        max_new_tokens: maximum length of an answer where a conversation states none; see
            :class:`~monai_medpruner.engines.TransformersEngine`.

    Raises:
        SettingsError: ``max_new_tokens`` is not positive.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_new_tokens: int = 256) -> None:
        if max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.checkpoint = checkpoint
        self.max_new_tokens = max_new_tokens

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return self.checkpoint.context_length

    @property
    def questions_at_once(self) -> int:
        """Enough to keep vLLM busy; its scheduler decides how many run together."""
        return _QUESTIONS_AT_ONCE

    @property
    def by_embeddings(self) -> bool:
        """Whether the whole prompt is handed over as embeddings.

        Raises:
            SettingsError: vLLM cannot take pruned slices of this model.
        """
        model_type = self.checkpoint.model.config.model_type
        if model_type not in (*_IMAGE_TYPES, *_EMBEDDING_TYPES):
            raise SettingsError(
                f"the vLLM engine does not know {model_type}; it knows {', '.join((*_IMAGE_TYPES, *_EMBEDDING_TYPES))}."
                " Use the engine transformers"
            )
        return model_type in _EMBEDDING_TYPES

    def generate(
        self,
        study: EncodedStudy,
        conversations: Sequence[Conversation],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """See :meth:`LanguageEngine.generate <monai_medpruner.engines.LanguageEngine.generate>`.

        Answers come whole: ``stream`` is called once for each.
        """
        return self.generate_each([(study, one) for one in conversations], stream)

    @torch.no_grad()
    def generate_each(
        self,
        asked: Sequence[tuple[EncodedStudy, Conversation]],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """See :meth:`LanguageEngine.generate_each <monai_medpruner.engines.LanguageEngine.generate_each>`."""
        seconds = StageTimes()
        with seconds.stage("prefill"):
            requests = [pruned_request(study, one, self.checkpoint) for study, one in asked]
            limits = [self._limit(request, one) for request, (_, one) in zip(requests, asked, strict=True)]
        completions = self._complete(asked, requests, limits)
        answers = []
        for request, completion in zip(requests, completions, strict=True):
            text = decoded_answer(self.checkpoint.tokenizer, list(completion.ids)).strip()
            if stream is not None:
                stream(text, True)
            spent = StageTimes({"prefill": seconds["prefill"] / len(requests)})
            spent.add(completion.seconds)
            answers.append(
                Answer.of_text(
                    text,
                    seconds=dict(spent),
                    prompt_tokens=request.length,
                    visual_tokens=sum(request.counts),
                    new_tokens=len(completion.ids),
                    reused_tokens=completion.cached_tokens,
                    truncated=completion.truncated,
                )
            )
        return answers

    @abstractmethod
    def _complete(
        self,
        asked: Sequence[tuple[EncodedStudy, Conversation]],
        requests: Sequence[PrunedRequest],
        limits: Sequence[int],
    ) -> list[Completion]:
        """Let vLLM generate the answers, each of at most as many tokens as its limit says."""

    def describe(self) -> dict[str, Any]:
        """Return the engine's name and settings as JSON values."""
        return {"name": "vllm", "max_new_tokens": self.max_new_tokens, **GREEDY, "prefix_reuse": True}

    def _limit(self, request: PrunedRequest, conversation: Conversation) -> int:
        """Tokens that an answer may have; vLLM would stop at too many tokens, or beyond its table of positions."""
        extent = len(request.ids) - len(request.extents) + sum(request.extents)
        asked = conversation.max_new_tokens or self.max_new_tokens
        return answer_limit(asked, max(request.length, extent), self.context_length)
