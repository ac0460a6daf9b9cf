# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The network for MONAI workflows, which answers questions about volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from monai_medpruner.data.image_list import MAX_QUESTION_CHARACTERS, check_question
from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.engines.language_engine import LanguageEngine
from monai_medpruner.engines.transformers_engine import TransformersEngine
from monai_medpruner.engines.volume_prompt import VolumePrompt
from monai_medpruner.errors import QuestionError, VolumeShapeError
from monai_medpruner.networks import Checkpoint, EncodedStudy, SliceEncoder, TransformersEncoder
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.results import Answer, StudyAnswers

__all__ = ["VolumeQA"]


class VolumeQA(nn.Module):
    """Answers questions about volumes, with an encoder that prunes tokens and an engine that generates text.

    Models are loaded on first use. A volume is encoded once, for any number of questions.

    Args:
        encoder: encodes and prunes the slices of a volume.
        engine: answers questions about an encoded study.
        prompt: template of the prompt.
        stream: called with each piece of an answer's text as it is generated, and whether it is the last piece.
        report_tokens: length limit for callers that ask for a report (the MONAI Label app); None for the engine's.
        max_characters: longest question, and longest turn of a conversation.
    """

    def __init__(
        self,
        encoder: SliceEncoder,
        engine: LanguageEngine,
        prompt: VolumePrompt | None = None,
        stream: Callable[[str, bool], object] | None = None,
        report_tokens: int | None = None,
        max_characters: int = MAX_QUESTION_CHARACTERS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.engine = engine
        self.prompt = prompt or VolumePrompt()
        self.stream = stream
        self.report_tokens = report_tokens
        self.max_characters = max_characters

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str,
        pruner: TokenPruner | None = None,
        *,
        prompt: VolumePrompt | None = None,
        max_new_tokens: int = 256,
        **loading: Any,
    ) -> VolumeQA:
        """Create a network whose encoder and engine share one checkpoint in this process.

        Args:
            path_or_id: a local checkpoint folder or a Hub id.
            pruner: selects the tokens to keep; None keeps all.
            prompt: template of the prompt.
            max_new_tokens: maximum length of an answer.
            loading: other arguments of :class:`~monai_medpruner.networks.Checkpoint`.
        """
        checkpoint = Checkpoint(path_or_id, **loading)
        engine = TransformersEngine(checkpoint, max_new_tokens=max_new_tokens)
        return cls(TransformersEncoder(checkpoint, pruner), engine, prompt)

    @torch.no_grad()
    def forward(
        self, volume: torch.Tensor, question: Sequence[Sequence[str]] | None = None
    ) -> list[StudyAnswers] | torch.Tensor:
        """Answer questions about volumes.

        Args:
            volume: ``(B, C, H, W, D)`` with slices along D, 1 or 3 channels, and intensities in [0, 1]. The slices are
                numbered by ``kept_indices`` in the metadata of a MetaTensor, and from 0 without it.
            question: a list of questions per volume.

        Returns:
            The record and the answers of each volume. Without questions, the kept projected tokens, float32
            ``(B, C, N)``, zero-padded to the volume with the most tokens.

        Raises:
            VolumeShapeError: the volume has another shape.
            IntensityUnitsError: intensities lie outside [0, 1].
            QuestionError: a question is not text, is empty or too long, or contains special tokens of the model.
            PromptError: the pruned prompt is longer than the context of the model.
        """
        if volume.ndim != 5 or volume.shape[1] not in (1, 3):
            raise VolumeShapeError(f"expected volumes of shape (B, 1 or 3, H, W, D), got {tuple(volume.shape)}")
        if question is not None and len(question) != len(volume):
            raise QuestionError(f"expected a list of questions for each of {len(volume)} volumes, got {len(question)}")
        for asked in question or ():  # before a volume is encoded
            for text in asked:
                check_question(text, max_characters=self.max_characters)
        studies = [self.encode(volume[index]) for index in range(len(volume))]
        if question is None:
            tokens = [torch.cat(list(study.tokens)).float() for study in studies]
            return nn.utils.rnn.pad_sequence(tokens, batch_first=True).transpose(1, 2)
        return [self.ask(study, asked) for study, asked in zip(studies, question, strict=True)]

    def encode(self, volume: torch.Tensor) -> EncodedStudy:
        """Encode and prune the slices of a volume ``(C, H, W, D)`` once, for any number of questions."""
        return self.encoder.encode(volume)

    def ask(self, study: EncodedStudy, questions: Sequence[str]) -> StudyAnswers:
        """Answer questions about an encoded volume."""
        asked = [(self.for_question(study, one), one, None) for one in questions]
        size = self.engine.questions_at_once
        parts = [asked[start : start + size] for start in range(0, len(asked), size)]
        answers = tuple(answer for part in parts for answer in self.answer_each(part))
        return StudyAnswers(study.record, answers, tuple(pruned.record for pruned, _, _ in asked))

    def for_question(self, study: EncodedStudy, question: str | Sequence[str]) -> EncodedStudy:
        """Prune a study for a question, or for the last question of a conversation.

        Returns:
            The pruned study; ``study`` itself if the pruner does not use the question.
        """
        return self.encoder.for_question(study, self._conversation(question).turns[-1])

    def answer(self, study: EncodedStudy, question: str | Sequence[str], max_new_tokens: int | None = None) -> Answer:
        """Answer one question about an encoded volume.

        Args:
            study: study that :meth:`encode` returned.
            question: plain text; or alternating questions and answers that end with a question.
            max_new_tokens: length limit of the answer; None for the engine's.

        Raises:
            QuestionError: a turn is not text, is empty or too long, or contains special tokens of the model.
            PromptError: the pruned prompt is longer than the context of the model.
        """
        return self.answer_each([(self.for_question(study, question), question, max_new_tokens)])[0]

    def answer_each(self, asked: Sequence[tuple[EncodedStudy, str | Sequence[str], int | None]]) -> list[Answer]:
        """Answer questions about one or several encoded volumes, together where the engine can.

        Args:
            asked: studies that :meth:`for_question` returned, each with its question and its length limit, as in
                :meth:`answer`. Engines answer about ``questions_at_once`` of them best together.

        Raises:
            QuestionError: see :meth:`answer`.
            PromptError: see :meth:`answer`.
        """
        pairs = [(study, self._conversation(question, limit)) for study, question, limit in asked]
        return self.engine.generate_each(pairs, self.stream)

    def _conversation(self, question: str | Sequence[str], max_new_tokens: int | None = None) -> Conversation:
        conversation = Conversation.about(self.prompt, question, max_new_tokens)
        for turn in conversation.turns:
            check_question(turn, max_characters=self.max_characters)
        return conversation

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values: ``model``, ``pruner``, ``prompt``, ``engine``."""
        return {**self.encoder.describe(), "prompt": asdict(self.prompt), "engine": self.engine.describe()}
