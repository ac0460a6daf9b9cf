# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The engine side of the seam: what generates answers from an encoded study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.networks import EncodedStudy
from monai_medpruner.results import Answer

__all__ = ["LanguageEngine"]


class LanguageEngine(Protocol):
    """Answers questions about encoded studies; needs no vision encoder."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together that the language model can read."""

    def generate(
        self,
        study: EncodedStudy,
        conversations: Sequence[Conversation],
        stream: Callable[[str, bool], object] | None = None,
    ) -> list[Answer]:
        """Answer the last question of each conversation.

        Args:
            study: encoded and pruned.
            conversations: about this study.
            stream: called with each piece of an answer's text as it is generated, and whether the answer ends with it;
                answers come one after the other.

        Raises:
            QuestionError: a question is not text, is empty, or holds special tokens of the model.
            PromptError: a prompt is longer than the model can read.
        """

    def describe(self) -> dict[str, Any]:
        """What generates, and how, as JSON holds it."""
