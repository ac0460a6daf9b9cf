# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The plugin that vLLM loads by its entry point ``vllm.general_plugins``."""

from __future__ import annotations

__all__ = ["register"]

_HERE = "monai_medpruner.engines.vllm"
#: stock names of architectures, and the classes that take pruned slices as well
_MODELS = {
    "Qwen2VLForConditionalGeneration": f"{_HERE}.qwen2_vl:PrunedQwen2VL",
    "Qwen2_5_VLForConditionalGeneration": f"{_HERE}.qwen2_5_vl:PrunedQwen2_5VL",
    "Qwen3VLForConditionalGeneration": f"{_HERE}.qwen3_vl:PrunedQwen3VL",
    "Gemma3ForConditionalGeneration": f"{_HERE}.gemma3:PrunedGemma3",
}


def register() -> None:
    """Register the classes under the stock names. Checkpoints stay as they are, and so does any other prompt."""
    from vllm import ModelRegistry
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    from monai_medpruner.engines.vllm.media import CheckedMediaConnector

    for architecture, place in _MODELS.items():
        ModelRegistry.register_model(architecture, place)
    MEDIA_CONNECTOR_REGISTRY.register("http")(CheckedMediaConnector)
