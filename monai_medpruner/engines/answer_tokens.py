# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How many tokens an answer may have, and the text that its tokens stand for."""

from __future__ import annotations

from typing import Any

from monai_medpruner.errors import PromptError
from monai_medpruner.reasoning import REASONING_MARKS

__all__ = ["answer_limit", "decoded_answer"]

# room for an answer that is asked for at least, where the limit is not lower
_LEAST_ROOM = 256


def answer_limit(limit: int, length: int, context_length: int) -> int:
    """Return the number of tokens that the answer to a prompt may have.

    Args:
        limit: what was asked for.
        length: tokens of the pruned prompt.
        context_length: tokens of prompt and answer together.

    Returns:
        ``limit``, or what the context leaves of it.

    Raises:
        PromptError: the context leaves less than ``limit`` and less than 256 tokens.
    """
    least, room = min(limit, _LEAST_ROOM), context_length - length
    if room < least:
        raise PromptError(
            f"the pruned prompt has {length} tokens and the answer may need {least}, but the model's context has "
            f"{context_length}. Keep fewer slices (a higher gamma, a range of slices) or fewer tokens (a lower tau)"
        )
    return min(limit, room)


def decoded_answer(tokenizer: Any, ids: list[int]) -> str:
    """The text of an answer without special tokens, except for the marks of reasoning, which may be special ones."""
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    if not any(mark in special for mark in REASONING_MARKS):
        return str(tokenizer.decode(ids, skip_special_tokens=True))
    left_out = set(tokenizer.convert_tokens_to_ids([one for one in special if one not in REASONING_MARKS]))
    return str(tokenizer.decode([one for one in ids if one not in left_out], skip_special_tokens=False))
