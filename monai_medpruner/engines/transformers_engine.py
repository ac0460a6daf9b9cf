# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Generation with a stock Hugging Face model in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from monai_medpruner.engines.answer_tokens import answer_limit, decoded_answer
from monai_medpruner.engines.conversation import Conversation, conversation_text
from monai_medpruner.engines.generation_values import GenerationValues
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint, EncodedStudy, PrunedVLM, StudyCache
from monai_medpruner.networks.prompt_files import PromptFiles
from monai_medpruner.networks.prompt_prefix import PromptPrefix
from monai_medpruner.results import Answer, PruningRecord, StageTimes

__all__ = ["TransformersEngine"]


class TransformersEngine(nn.Module):
    """Greedy decoding with transformers, one question at a time.

    Of the checkpoint's ``generation_config.json`` only the ids of tokens and the kind of cache are used. Its other
    values, such as a penalty or a temperature, are overridden; :meth:`describe` tells both.

    What the language model makes of the instruction and the slices is kept for further questions about the same study,
    as long as the caller keeps the study: keys and values of one study, in the memory of the model's device. Threads
    may share an engine. See :class:`~monai_medpruner.networks.prompt_prefix.PromptPrefix`.

    Args:
        checkpoint: checkpoint of the model, loaded on first use. An encoder in this process may share it.
        max_new_tokens: maximum length of an answer, reasoning included, where a conversation states none. It is less
            where the model's context leaves less, down to 256 tokens. An answer that ends there is marked as truncated.
        max_seconds: longest time for the tokens of an answer, the prompt included. An answer that is not complete then
            ends there, after one token at least, with a note. None for no limit.
        reuse_prefix: False runs the whole prompt for each question, in one part. So does a model whose cache does not
            allow the reuse; :meth:`describe` tells.
        cache: keeps keys and values in its folder too, for further runs that ask about the same study.

    Raises:
        SettingsError: ``max_new_tokens`` or ``max_seconds`` is not positive, or the checkpoint is loaded without
            its language model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_new_tokens: int = 256,
        max_seconds: float | None = None,
        reuse_prefix: bool = True,
        cache: StudyCache | None = None,
    ) -> None:
        super().__init__()
        if max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if max_seconds is not None and not max_seconds > 0:
            raise SettingsError(f"max_seconds must be a positive number or None, got {max_seconds!r}")
        if checkpoint.parts != "all":
            raise SettingsError("the engine needs a checkpoint with its language model: parts must be 'all'")
        self.checkpoint = checkpoint
        self.max_new_tokens = max_new_tokens
        self.max_seconds = max_seconds
        self.reuse_prefix = reuse_prefix
        folder = None if cache is None else cache.files
        self._prefix = PromptPrefix(None if folder is None else PromptFiles(folder, checkpoint.describe))

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return self.checkpoint.context_length

    @property
    def questions_at_once(self) -> int:
        """One; each answer is complete before the next begins."""
        return 1

    @torch.no_grad()
    def generate(
        self,
        study: EncodedStudy,
        conversations: Sequence[Conversation],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """See :meth:`LanguageEngine.generate <monai_medpruner.engines.LanguageEngine.generate>`."""
        # the positions must be those that the study was encoded for
        model = PrunedVLM(self.checkpoint.model, preserve_position_ids=study.preserve_position_ids)
        return [self._answer(model, study, conversation, stream) for conversation in conversations]

    def generate_each(
        self,
        asked: Sequence[tuple[EncodedStudy, Conversation]],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """See :meth:`LanguageEngine.generate_each <monai_medpruner.engines.LanguageEngine.generate_each>`."""
        return [self.generate(study, [conversation], stream)[0] for study, conversation in asked]

    def describe(self) -> dict[str, Any]:
        """Return the engine's name and settings as JSON values."""
        return {
            "name": "transformers",
            "max_new_tokens": self.max_new_tokens,
            "max_seconds": self.max_seconds,
            **GenerationValues.of(self.checkpoint.model.generation_config).describe(),
            "prefix_reuse": self.reuse_prefix and PromptPrefix.possible(self.checkpoint.model),
        }

    def prompt_text(self, study: EncodedStudy, conversation: Conversation) -> str:
        """Return the text of the prompt, with placeholders for all tokens of the kept slices.

        Raises:
            QuestionError: a turn contains special tokens of the model.
            PromptError: the number of images that the chat template writes is not the number of slices.
        """
        return conversation_text(
            conversation, self.checkpoint.tokenizer, self.checkpoint.family, study.grids, study.record.slice_indices
        )

    def _answer(
        self,
        model: PrunedVLM,
        study: EncodedStudy,
        conversation: Conversation,
        stream: Callable[[str, bool], object] | None,
    ) -> Answer:
        tokenizer, seconds = self.checkpoint.tokenizer, StageTimes()
        with seconds.stage("prefill"):
            text = self.prompt_text(study, conversation)
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            length = inputs["input_ids"].shape[1]
            pruned_length = length - sum(int((~one.keep).sum()) for one in study.record.slices)
            limit = answer_limit(conversation.max_new_tokens or self.max_new_tokens, pruned_length, self.context_length)
            values = GenerationValues.of(self.checkpoint.model.generation_config)
        records: list[PruningRecord] = []
        clock = TimeLimit(self.max_seconds)
        output = model.generate(
            encoded=study.slices,
            on_record=records.append,
            prefix=self._prefix if self.reuse_prefix else None,
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=limit,
            stopping_criteria=StoppingCriteriaList([clock]),
            **values.arguments,
            streamer=None if stream is None else AnswerStreamer(tokenizer, stream),
        )
        seconds.add({stage: records[0].seconds[stage] for stage in ("prefill", "decode")})
        new = output[0, length:].tolist()
        return Answer.of_text(
            decoded_answer(tokenizer, new).strip(),
            seconds=dict(seconds),
            prompt_tokens=pruned_length,
            visual_tokens=sum(study.record.kept_tokens),
            new_tokens=len(new),
            reused_tokens=records[0].reused_tokens,
            truncated=len(new) >= limit and new[-1] not in values.end_tokens,
            notes=clock.notes,
        )


class TimeLimit(StoppingCriteria):
    """Ends an answer that takes too long.

    Args:
        seconds: from now on; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.start = perf_counter()
        self.notes: tuple[str, ...] = ()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """Return, for each prompt, whether the answer ends; see the base class."""
        over = self.seconds is not None and perf_counter() - self.start >= self.seconds
        if over:
            self.notes = (f"the answer may be cut short: it was ended after {self.seconds:g} seconds (limit_seconds)",)
        return torch.full((len(input_ids),), over, device=input_ids.device)  # type: ignore[return-value]


class AnswerStreamer(TextStreamer):
    """Passes the text of an answer to a function piece by piece, without the prompt."""

    def __init__(self, tokenizer: Any, receive: Callable[[str, bool], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.receive = receive

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass on a piece; the base class prints it."""
        self.receive(text, stream_end)
