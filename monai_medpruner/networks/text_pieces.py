# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""An answer's text, piece by piece, while it is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TextStreamer

__all__ = ["TextPieces"]


class TextPieces(TextStreamer):
    """Hands finished pieces of an answer to a function, the prompt left out."""

    def __init__(self, tokenizer: Any, receive: Callable[[str, bool], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.receive = receive

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass a piece on, instead of printing it."""
        self.receive(text, stream_end)
