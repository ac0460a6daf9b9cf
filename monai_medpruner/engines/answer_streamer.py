# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An answer's text, piece by piece, while it is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TextStreamer

__all__ = ["AnswerStreamer"]


class AnswerStreamer(TextStreamer):
    """Hands finished pieces of an answer to a function, the prompt left out."""

    def __init__(self, tokenizer: Any, receive: Callable[[str, bool], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.receive = receive

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass a piece on, instead of printing it."""
        self.receive(text, stream_end)
