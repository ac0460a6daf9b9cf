# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen2.5-VL in vLLM on pruned slices. Runs inside vLLM."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.model_executor.models.qwen2_vl import Qwen2VLMultiModalDataParser
from vllm.multimodal import MULTIMODAL_REGISTRY

from monai_medpruner.engines.vllm.qwen2_vl import PrunedModel, PrunedParser, PrunedProcessor, with_pruned_fields

__all__ = ["PrunedQwen2_5VL"]


class _Parser(PrunedParser, Qwen2VLMultiModalDataParser):
    embedding_fields = with_pruned_fields(Qwen2VLMultiModalDataParser)


class _Info(Qwen2_5_VLProcessingInfo):
    def get_data_parser(self) -> Any:
        return _Parser.like(super().get_data_parser(), self.get_hf_config())


class _Processor(PrunedProcessor, Qwen2_5_VLMultiModalProcessor):
    pass


@MULTIMODAL_REGISTRY.register_processor(_Processor, info=_Info, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class PrunedQwen2_5VL(PrunedModel, Qwen2_5_VLForConditionalGeneration):
    """The stock model, which takes pruned slices as well."""
