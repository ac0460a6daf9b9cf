# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The interface of language engines, which generate answers from an encoded study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.networks import EncodedStudy
from monai_medpruner.results import Answer

__all__ = ["LanguageEngine"]


class LanguageEngine(Protocol):
    """Answers questions about encoded studies; does not need the vision encoder."""

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""

    @property
    def questions_at_once(self) -> int:
        """How many questions :meth:`generate_each` answers best together."""

    def generate(
        self,
        study: EncodedStudy,
        conversations: Sequence[Conversation],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """Answer the last question of each conversation.

        Args:
            study: encoded and pruned study.
            conversations: conversations about this study.
            stream: called with each piece of an answer's text as it is generated, and whether it is the last piece.
                Answers are streamed one after the other.

        Returns:
            One answer per conversation.

        Raises:
            QuestionError: a question is not text, is empty, or contains special tokens of the model.
            PromptError: a prompt is longer than the context of the model.
        """

    def generate_each(
        self,
        asked: Sequence[tuple[EncodedStudy, Conversation]],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """Answer conversations about several studies, each about its own; see :meth:`generate`."""

    def describe(self) -> dict[str, Any]:
        """Return the engine's name and settings as JSON values."""
