# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruned prompts on vLLM. Only the modules that say so import it; the others run without."""

from __future__ import annotations

from monai_medpruner.engines.vllm.offline import OfflineVLLMEngine
from monai_medpruner.engines.vllm.open_engine import open_vllm_engine
from monai_medpruner.engines.vllm.pruned_request import PrunedRequest, pruned_request
from monai_medpruner.engines.vllm.server import ServerVLLMEngine
from monai_medpruner.engines.vllm.vllm_engine import Completion, VLLMEngine

__all__ = [
    "Completion",
    "OfflineVLLMEngine",
    "PrunedRequest",
    "ServerVLLMEngine",
    "VLLMEngine",
    "open_vllm_engine",
    "pruned_request",
]
