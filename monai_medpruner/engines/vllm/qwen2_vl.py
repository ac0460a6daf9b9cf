# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen2-VL in vLLM on pruned slices, and what the Qwen-VL families share. Runs inside vLLM."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalDataParser,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from monai_medpruner.engines.vllm.pruned_images import (
    PRUNED_FIELDS,
    check_names,
    embed_rows,
    is_pruned,
    pruned_fields,
    pruned_items,
    pruned_mrope,
    pruned_update,
)

__all__ = ["PrunedModel", "PrunedParser", "PrunedProcessor", "PrunedQwen2VL", "with_pruned_fields"]


def with_pruned_fields(parser: Any) -> dict[str, dict[str, str]]:
    """Return the fields of a stock parser's embeddings, and those of pruned slices."""
    return {**parser.embedding_fields, "image": {**parser.embedding_fields["image"], **PRUNED_FIELDS}}


class PrunedParser:
    """Goes before a stock data parser of the Qwen-VL families in the order of classes."""

    config: Any
    allow_missing_mm_embeddings: bool

    @classmethod
    def like(cls, stock: Any, config: Any) -> Any:
        """Return a parser with the arguments of a stock one.

        Args:
            stock: the stock parser.
            config: of the model.
        """
        parser: Any = cls(
            stock._spatial_merge_size,  # type: ignore[call-arg]
            video_needs_metadata=stock.video_needs_metadata,
            expected_hidden_size=stock.expected_hidden_size,
            allow_missing_mm_embeddings=stock.allow_missing_mm_embeddings,
        )
        parser.config = config
        return parser

    def _parse_image_data(self, data: Any) -> Any:
        if is_pruned(data):
            return pruned_items(data, self.config, self.allow_missing_mm_embeddings)
        return super()._parse_image_data(data)  # type: ignore[misc]

    def embedding_field_sets(self, modality: str) -> tuple[set[str], set[str]]:
        """The fields of stock embeddings, which have every token of the grid."""
        required, optional = super().embedding_field_sets(modality)  # type: ignore[misc]
        return required - (PRUNED_FIELDS.keys() - {"image_embeds"}), optional


class PrunedProcessor:
    """Goes before a stock processor of the Qwen-VL families in the order of classes."""

    info: Any

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process a request, whose pruned slices must have the right names."""
        check_names(inputs)
        return super().apply(inputs, timing_ctx)  # type: ignore[misc]

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        if "kept_count" in hf_inputs:
            return pruned_fields(hf_inputs)
        return super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        stock = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)  # type: ignore[misc]
        token = self.info.get_hf_config().image_token_id
        items = out_mm_kwargs.get("image") or ()
        return [
            pruned_update(one.replacement, items, one.target, token) if one.modality == "image" else one
            for one in stock
        ]


class PrunedModel:
    """Goes before a stock model of the Qwen-VL families in the order of classes."""

    language_model: Any

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the rows of each image: the kept ones of a slice, or what the stock model makes of pixels."""
        rows = embed_rows(kwargs, self.language_model.model.embed_tokens.weight.dtype)
        return super().embed_multimodal(**kwargs) if rows is None else rows  # type: ignore[misc]

    def get_mrope_input_positions(self, input_tokens: Any, mm_features: Any) -> Any:
        """Return the rotary positions of a prompt; see :func:`pruned_mrope`."""
        found = pruned_mrope(input_tokens, mm_features)
        if found is None:
            return super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc]
        return found


class _Parser(PrunedParser, Qwen2VLMultiModalDataParser):
    embedding_fields = with_pruned_fields(Qwen2VLMultiModalDataParser)


class _Info(Qwen2VLProcessingInfo):
    def get_data_parser(self) -> Any:
        return _Parser.like(super().get_data_parser(), self.get_hf_config())


class _Processor(PrunedProcessor, Qwen2VLMultiModalProcessor):
    pass


@MULTIMODAL_REGISTRY.register_processor(_Processor, info=_Info, dummy_inputs=Qwen2VLDummyInputsBuilder)
class PrunedQwen2VL(PrunedModel, Qwen2VLForConditionalGeneration):
    """The stock model, which takes pruned slices as well."""
