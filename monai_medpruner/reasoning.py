# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers of models that write down their reasoning first, as ``<think>…</think>``."""

from __future__ import annotations

import re

__all__ = ["REASONING_MARKS", "without_reasoning"]

#: texts that begin and end a model's reasoning (Qwen3, Hulu-Med, NV-Reason)
REASONING_MARKS = ("<think>", "</think>")
_BLOCK = re.compile(r"<think>.*?(?:</think>|\Z)", flags=re.DOTALL)


def without_reasoning(text: str) -> str:
    """Return an answer without its reasoning, without surrounding white space.

    Every ``<think>…</think>`` is left out, and so is what stands before a ``</think>`` without a beginning, which some
    chat templates write into the prompt. Reasoning that does not end leaves nothing: the answer was cut.

    Args:
        text: what a model wrote.
    """
    return _BLOCK.sub("", text).rpartition("</think>")[2].strip()
