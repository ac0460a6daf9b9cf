# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The engine on vLLM that a bundle's settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_medpruner.engines.vllm.offline import OfflineVLLMEngine
from monai_medpruner.engines.vllm.server import ServerVLLMEngine
from monai_medpruner.engines.vllm.vllm_engine import VLLMEngine
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint

__all__ = ["open_vllm_engine"]


def open_vllm_engine(
    checkpoint: Checkpoint,
    *,
    endpoint: str | None = None,
    language_model: str | None = None,
    row_folder: str | None = None,
    max_new_tokens: int = 256,
    max_seconds: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> VLLMEngine:
    """Return the engine for a vLLM server, or for vLLM in this process.

    Args:
        checkpoint: of the model; its vision part is used.
        endpoint: address of a running server, such as ``http://127.0.0.1:8000``; None loads vLLM in this process.
        language_model: folder of the exported language model, for VideoLLaMA3.
        row_folder: folder for the kept rows, which the server reads too; None sends them in the requests.
        max_new_tokens: maximum length of an answer.
        max_seconds: longest time to wait for an answer of a server; None for ten minutes. vLLM in this process has no
            such limit.
        options: further arguments of ``vllm.LLM`` in this process, such as ``gpu_memory_utilization``.

    Raises:
        SettingsError: a setting is invalid, or does not go with another.
    """
    if endpoint is None and row_folder is not None:
        raise SettingsError("row_folder is for a vLLM server: give its address as endpoint")
    if endpoint is None:
        return OfflineVLLMEngine(
            checkpoint, max_new_tokens=max_new_tokens, language_model=language_model, options=options
        )
    if options:
        raise SettingsError("options are those of vLLM in this process; give them to the server where it is started")
    waiting: dict[str, Any] = {} if max_seconds is None else {"timeout_s": max_seconds}
    return ServerVLLMEngine(
        checkpoint,
        endpoint,
        max_new_tokens=max_new_tokens,
        language_model=language_model,
        row_folder=row_folder,
        **waiting,
    )
