# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Gemma 3 in vLLM on pruned slices. Runs inside vLLM.

The prompt holds a slice as the checkpoint's processor writes it: blank lines, begin of image, one soft token, end of
image, blank lines. The stock class would write these itself, and merges blank lines around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vllm.model_executor.models.gemma3_mm import (
    Gemma3DummyInputsBuilder,
    Gemma3ForConditionalGeneration,
    Gemma3MultiModalProcessor,
    Gemma3ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import BaseMultiModalProcessor, PromptReplacement, PromptUpdateDetails

from monai_medpruner.engines.vllm.pruned_images import (
    PRUNED_FIELDS,
    check_names,
    embed_rows,
    is_pruned,
    pruned_fields,
    pruned_items,
)

__all__ = ["PrunedGemma3"]


class _Parser(MultiModalDataParser):
    embedding_fields: ClassVar[dict[str, dict[str, str]]] = {"image": PRUNED_FIELDS}
    config: Any

    def _parse_image_data(self, data: Any) -> Any:
        if is_pruned(data):
            return pruned_items(data, self.config, self.allow_missing_mm_embeddings)
        if isinstance(data, Mapping):
            raise ValueError("embeddings of images need the fields of pruned slices, kept_count among them")
        return super()._parse_image_data(data)


class _Info(Gemma3ProcessingInfo):
    def get_data_parser(self) -> Any:
        parser = _Parser(
            expected_hidden_size=self._get_expected_hidden_size(),
            allow_missing_mm_embeddings=self.allow_missing_mm_embeddings,
        )
        parser.config = self.get_hf_config()
        return parser


class _Processor(Gemma3MultiModalProcessor):
    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        check_names(inputs)
        return super().apply(inputs, timing_ctx)

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        if "kept_count" in hf_inputs:
            return pruned_fields(hf_inputs)
        return super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        items = out_mm_kwargs.get("image") or ()
        if not any(item is not None and "kept_count" in item for item in items):
            return super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        token = self.info.get_hf_config().image_token_index
        if all(int(item["kept_written"].data) for item in items):
            return [PromptReplacement("image", [token], lambda index: [token] * int(items[index]["kept_count"].data))]
        processor, tokenizer = self.info.get_hf_processor(**hf_processor_mm_kwargs), self.info.get_tokenizer()
        soft = tokenizer.decode([token])
        before, after = processor.full_image_sequence.split(soft * processor.image_seq_length)

        def written(index: int) -> Any:
            text = before + soft * int(items[index]["kept_count"].data) + after
            return PromptUpdateDetails.select_token_id(tokenizer.encode(text, add_special_tokens=False), token)

        return [PromptReplacement("image", [tokenizer.get_vocab()[processor.boi_token]], written)]

    # the stock class merges blank lines around its own replacement; the caller's ids are to stay as they are

    def _apply_token_matches(self, prompt: Any, updates: Any) -> Any:
        if self._leaves_lines(updates):
            return BaseMultiModalProcessor._apply_token_matches(self, prompt, updates)
        return super()._apply_token_matches(prompt, updates)

    def _apply_token_matches_with_placeholders(self, token_ids: Any, updates: Any) -> Any:
        if self._leaves_lines(updates):
            return BaseMultiModalProcessor._apply_token_matches_with_placeholders(self, token_ids, updates)
        return super()._apply_token_matches_with_placeholders(token_ids, updates)

    def _find_mm_placeholders(self, new_token_ids: Any, updates: Any) -> Any:
        if self._leaves_lines(updates):
            return BaseMultiModalProcessor._find_mm_placeholders(self, new_token_ids, updates)
        return super()._find_mm_placeholders(new_token_ids, updates)

    def _leaves_lines(self, updates: Any) -> bool:
        """Whether no blank lines are merged.

        The ids hold all that stands around the slices, by what the replacement looks for; or the tokenizer, a small
        one, has no tokens for several lines, which the stock class needs.
        """
        if "\n\n\n\n" not in self.info.get_tokenizer().get_vocab():
            return True
        token = self.info.get_hf_config().image_token_index
        return any(update.target == [token] for item in updates.get("image", ()) for update in item)


@MULTIMODAL_REGISTRY.register_processor(_Processor, info=_Info, dummy_inputs=Gemma3DummyInputsBuilder)
class PrunedGemma3(Gemma3ForConditionalGeneration):
    """The stock model, which takes pruned slices as well."""

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the rows of each image: the kept ones of a slice, or what the stock model makes of pixels."""
        rows = embed_rows(kwargs, self.language_model.model.embed_tokens.weight.dtype)
        return super().embed_multimodal(**kwargs) if rows is None else rows
