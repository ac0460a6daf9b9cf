# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen3-VL in vLLM on pruned slices, with their DeepStack rows. Runs inside vLLM."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalDataParser,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.model_executor.models.utils import StageMissingLayer
from vllm.multimodal import MULTIMODAL_REGISTRY

from monai_medpruner.engines.vllm.qwen2_vl import PrunedModel, PrunedParser, PrunedProcessor, with_pruned_fields

__all__ = ["PrunedQwen3VL"]


class _Parser(PrunedParser, Qwen3VLMultiModalDataParser):
    embedding_fields = with_pruned_fields(Qwen3VLMultiModalDataParser)


class _Info(Qwen3VLProcessingInfo):
    def get_data_parser(self) -> Any:
        return _Parser.like(super().get_data_parser(), self.get_hf_config())


class _Processor(PrunedProcessor, Qwen3VLMultiModalProcessor):
    pass


@MULTIMODAL_REGISTRY.register_processor(_Processor, info=_Info, dummy_inputs=Qwen3VLDummyInputsBuilder)
class PrunedQwen3VL(PrunedModel, Qwen3VLForConditionalGeneration):
    """The stock model, which takes pruned slices as well.

    Without its vision encoder, stock vLLM 0.32 forgets that rows of images carry DeepStack features. What it then
    leaves out is set up here.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config = vllm_config.model_config.hf_config
        if not isinstance(self.visual, StageMissingLayer) or not config.vision_config.deepstack_visual_indexes:
            return
        self.use_deepstack = True
        self.deepstack_num_level = len(config.vision_config.deepstack_visual_indexes)
        self.multiscale_dim = self.visual_dim * self.deepstack_num_level
        tokens = vllm_config.scheduler_config.max_num_batched_tokens
        self.deepstack_input_embeds = [
            torch.zeros(tokens, config.text_config.hidden_size) for _ in range(self.deepstack_num_level)
        ]
        self.deepstack_input_embeds_num_tokens = 0
