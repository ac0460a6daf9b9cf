# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A wrapper that prunes the visual tokens of a stock vision-language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from monai_medpruner.errors import PromptError
from monai_medpruner.networks.caller_prompt import CallersPrompt
from monai_medpruner.networks.checkpoint import load_model
from monai_medpruner.networks.drop_in import (
    named_arguments,
    refuse_second_model,
    refuse_wrapped,
    values_turned_off,
    warn_of_missing_gradients,
)
from monai_medpruner.networks.encoding import encode_and_prune_each
from monai_medpruner.networks.families import family_of
from monai_medpruner.networks.generation import CachedPrompt, FirstStepClock, shift_length_limits
from monai_medpruner.networks.prompt import checked_inputs, keep_mask, prune_prompt, slices_by_prompt
from monai_medpruner.networks.prompt_prefix import PromptPrefix
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.results import PruningRecord, SliceRecord, StageTimes, synchronize

__all__ = ["PrunedVLM"]

#: attributes that code for Hugging Face models assigns
_SET_ON_THE_MODEL = ("config", "generation_config")


class PrunedVLM(nn.Module):
    """A stock Hugging Face vision-language model whose visual tokens are pruned before the language model.

    It is a drop-in replacement for the model: :meth:`forward` and :meth:`generate` take what those of the model take,
    and every other attribute (``device``, ``config``, ``generation_config``, ``save_pretrained``, …) is the model's.
    The model is not changed. While slices are encoded it has one hook, which is removed afterward, also after an
    exception.

    Slices are encoded without gradients: training through the wrapper trains the language model, and a warning says so
    where a vision parameter asks for a gradient.

    .. code-block:: python

        vlm = PrunedVLM(model, NucleusPruner(tau=0.9, temperature=2.0))
        records = []
        output = vlm.generate(**inputs, max_new_tokens=64, on_record=records.append)
        answer = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :])
        print(records[0].kept_tokens, "of", records[0].unpruned_tokens, "visual tokens")

    Args:
        model: a stock model of a supported family, on its device and in its dtype.
        pruner: selects the tokens to keep; None gives the outputs of the stock model. If the pruner needs the question,
            it is the text after the last visual token of each prompt.
        vision_batch_size: number of slices that the vision encoder processes at once. None takes batches of up to
            32,768 patches, which bounds the encoder's activations to about 0.3 GB for an 8B model in bfloat16.
        preserve_position_ids: True keeps the positions of the unpruned prompt; False renumbers the kept tokens without
            gaps. None takes the family's default: Qwen-VL models keep their two-dimensional positions, models with
            one-dimensional positions are renumbered. The other value is for ablations. Sliding windows always count the
            tokens of the pruned prompt.

    ``torch.compile`` of the wrapper runs it without compiling anything, because prompts of different lengths would be
    compiled each time. Compile the language model instead: ``vlm.get_decoder().compile()``.

    Raises:
        UnsupportedModelError: no family supports the model, it is wrapped by PEFT, or its weights are offloaded.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pruner: TokenPruner | None = None,
        vision_batch_size: int | None = None,
        preserve_position_ids: bool | None = None,
    ) -> None:
        super().__init__()
        refuse_wrapped(model)
        self.model: Any = model
        self.pruner = pruner
        self.vision_batch_size = vision_batch_size
        self.preserve_position_ids = preserve_position_ids
        self.family = family_of(model)
        # the prompt of each cache, for as long as the caller keeps the cache
        self._cached: WeakKeyDictionary[Any, CachedPrompt] = WeakKeyDictionary()

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str,
        pruner: TokenPruner | None = None,
        *,
        revision: str | None = None,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        device: torch.device | str | None = None,
        vision_batch_size: int | None = None,
        preserve_position_ids: bool | None = None,
    ) -> PrunedVLM:
        """Load a checkpoint and wrap it; see :func:`monai_medpruner.networks.checkpoint.load_model`."""
        model = load_model(
            path_or_id, revision=revision, dtype=dtype, attn_implementation=attn_implementation, device=device
        )
        return cls(model, pruner, vision_batch_size, preserve_position_ids)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # copying and unpickling ask for attributes before there is a model
            model = self.__dict__.get("_modules", {}).get("model")
            if model is None or (name.startswith("__") and name.endswith("__")):
                raise
            return getattr(model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SET_ON_THE_MODEL:
            setattr(self.model, name, value)
        else:
            super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # a cache belongs to the network whose generate returned it, not to copies of the network
        return {name: value for name, value in self.__dict__.items() if name != "_cached"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._cached = WeakKeyDictionary()

    def encode(self, vision_batch_size: int | None = None, **inputs: Any) -> PrunedSlices:
        """Encode and prune slices once, for any number of questions about them.

        Args:
            vision_batch_size: replaces the network's value for this call.
            inputs: the image inputs that the model's image processor returns; other inputs are ignored.

        Returns:
            The argument ``encoded`` of :meth:`forward` and :meth:`generate`.

        Raises:
            SettingsError: the pruner needs the question, so that only :meth:`forward` and :meth:`generate` can encode.
        """
        return self.encode_each([self.pruner], vision_batch_size, **inputs)[0]

    def encode_each(
        self, pruners: Sequence[TokenPruner | None], vision_batch_size: int | None = None, **inputs: Any
    ) -> list[PrunedSlices]:
        """Encode slices once and prune them with several pruners instead of the network's own; see :meth:`encode`."""
        batch = vision_batch_size or self.vision_batch_size
        return encode_and_prune_each(self.family, pruners, self._on_device(inputs), batch)

    def pruned_prompt(self, encoded: PrunedSlices, **inputs: Any) -> dict[str, Any]:
        """Return the arguments that :meth:`forward` passes to the model for encoded slices.

        Args:
            encoded: slices that :meth:`encode` returned.
            inputs: as in :meth:`forward`.

        Raises:
            PromptError: the inputs are inconsistent.
        """
        return self._shortened(checked_inputs(self._on_device(inputs)), encoded)[0]

    @torch.compiler.disable
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        *,
        encoded: PrunedSlices | None = None,
        on_record: Callable[[PruningRecord], object] | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the model on the pruned prompt.

        Args:
            input_ids: the prompts, ``(B, L)``.
            encoded: slices that :meth:`encode` returned, used instead of the image inputs.
            on_record: called with the record of this call, in the calling thread; see :meth:`generate`.
            inputs: further outputs of the processor, and other arguments of the model's forward. Per-token inputs
                (``labels``, ``position_ids``, token types) are pruned in the same way.

        Returns:
            The model's own output. Its logits have the length of the **pruned** prompt, ``(B, L', vocabulary)``, padded
            on the left if the prompts of the batch differ in length. ``keep`` of the record marks their tokens in the
            unpruned prompt.

        Raises:
            PromptError: the inputs are inconsistent.
        """
        inputs = named_arguments({"input_ids": input_ids}, inputs)
        if (stock := self._stock_record(encoded, inputs)) is not None:
            output = self.model(**self._on_device(inputs))
            _report(on_record, stock)
            return output
        if torch.is_grad_enabled():
            warn_of_missing_gradients(self.model)
        pruned, record = self._prune(inputs, encoded)
        seconds = StageTimes(record.seconds)
        with seconds.stage("prefill", self.model.device):
            output = self.model(**pruned)
        _report(on_record, replace(record, seconds=seconds))
        return output

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        *,
        encoded: PrunedSlices | None = None,
        on_record: Callable[[PruningRecord], object] | None = None,
        prefix: PromptPrefix | None = None,
        **arguments: Any,
    ) -> Any:
        """Generate from the pruned prompt.

        Args:
            inputs: the prompts, ``(B, L)``; the same as ``input_ids``.
            generation_config: as in the model's ``generate``.
            logits_processor: as in the model's ``generate``. Like stopping criteria, a prefix function and a streamer,
                it sees the unpruned prompt followed by the new tokens.
            stopping_criteria: as in the model's ``generate``.
            encoded: slices that :meth:`encode` returned, used instead of the image inputs.
            on_record: called with the complete record of this call (kept tokens, seconds per stage), in the thread of
                the call. ``records.append`` of a list also works if ``generate`` runs in a thread of its own, as with
                a streamer.
            prefix: with ``encoded``, holds what the language model made of the prompt up to its last visual token, for
                the next prompt about the same slices. None runs the prompt in one part.
            arguments: the outputs of the model's processor, and other arguments of the model's ``generate``.
                ``max_length`` and ``min_length`` count the unpruned prompt, as with the stock model.

        To continue a conversation, generate with ``return_dict_in_generate=True``. In the next call, pass
        ``past_key_values`` of the output, and its ``sequences`` followed by the new turn as ``input_ids``. The slices
        are in the cache and are not encoded again.

        Returns:
            The output of the model's ``generate``. Its sequences contain the **unpruned** prompt, followed by the new
            tokens.

        Raises:
            PromptError: the inputs are inconsistent.
        """
        if inputs is not None:
            arguments = named_arguments({"input_ids": inputs}, arguments)
        own = {"generation_config": generation_config, "logits_processor": logits_processor}
        arguments = named_arguments({**own, "stopping_criteria": stopping_criteria}, arguments)
        if (stock := self._stock_record(encoded, arguments)) is not None:
            output = self.model.generate(**self._on_device(arguments))
            _report(on_record, stock)
            return output
        refuse_second_model(arguments)
        pruned, record = self._prune(arguments, encoded)
        pruned |= values_turned_off(arguments, self.model.generation_config)
        ids = arguments["input_ids"].to(self.model.device)
        length = pruned["input_ids"].shape[1]
        shift_length_limits(pruned, ids.shape[1] - length)
        prompt = CallersPrompt(ids, length)
        prompt.adapt(pruned)
        clock = FirstStepClock(self.model.device)
        pruned["stopping_criteria"] = StoppingCriteriaList([*(pruned.get("stopping_criteria") or ()), clock])
        start = perf_counter()
        with self._with_prefix(prefix, pruned, encoded) as (shortened, reused):
            output = self.model.generate(**shortened)
        synchronize(self.model.device)
        spent = {"prefill": clock.first_step - start, "decode": perf_counter() - clock.first_step}
        _report(on_record, replace(record, seconds={**record.seconds, **spent}, reused_tokens=reused))
        return self._with_callers_prompt(output, prompt, pruned, record.keep)

    @contextmanager
    def _with_prefix(
        self, prefix: PromptPrefix | None, pruned: dict[str, Any], encoded: PrunedSlices | None
    ) -> Iterator[tuple[dict[str, Any], int]]:
        """The arguments of generation, and how many tokens of the prompt need not run."""
        if prefix is None or encoded is None or "mm_encoder_outputs" not in pruned:
            yield pruned, 0
            return
        with prefix.shared(self.family, pruned, encoded) as shared:
            yield shared

    def _with_callers_prompt(
        self, output: Any, prompt: CallersPrompt, pruned: dict[str, Any], keep: torch.Tensor
    ) -> torch.Tensor | Any:
        """Replace the pruned prompt in the output by the caller's, and register the output's cache for a next turn."""
        new_tokens = output if isinstance(output, torch.Tensor) else output.sequences
        sequences = prompt.sequences(new_tokens)
        if isinstance(output, torch.Tensor):
            return sequences
        output.sequences = sequences
        # the cache of a beam search has a row per beam, so that no further turn fits
        beams = getattr(output, "beam_indices", None) is not None or len(sequences) != len(prompt.ids)
        if output.past_key_values is not None and not beams:
            self._cached[output.past_key_values] = CachedPrompt.of_answer(self.family, pruned, keep, sequences)
        return output

    def _stock_record(self, encoded: PrunedSlices | None, inputs: dict[str, Any]) -> PruningRecord | None:
        """Return the record of a call in which nothing is pruned, so that the stock model runs; None for others."""
        cached = inputs.get("past_key_values") in self._cached
        if encoded is not None or cached or (self.pruner is not None and self._has_images(inputs)):
            return None
        checked = checked_inputs(inputs)
        keep = checked["attention_mask"].bool()
        if self._has_images(inputs):
            slices = [SliceRecord.unpruned(grid) for grid in self.family.token_grids(inputs)]
            return PruningRecord(keep, slices_by_prompt(checked, slices, self.family.image_token_id))
        if self.pruner is not None and (checked["input_ids"] == self.family.image_token_id).any():
            raise PromptError(
                "the prompt has placeholders of visual tokens, but there are neither images nor a cache that this "
                "network's generate returned (copied caches and caches of a beam search cannot be used); pass one of "
                "them"
            )
        return PruningRecord(keep, [[] for _ in keep])

    def _has_images(self, inputs: dict[str, Any]) -> bool:
        return any(inputs.get(name) is not None for name in self.family.image_inputs)

    def _prune(self, inputs: dict[str, Any], encoded: PrunedSlices | None) -> tuple[dict[str, Any], PruningRecord]:
        """Return the inputs of the language model, and the record of the call."""
        checked = checked_inputs(self._on_device(inputs))
        if (cache := checked.get("past_key_values")) is not None and cache.get_seq_length() > 0:
            return self._follow_up(checked, cache)
        if encoded is None:
            encoded = self._encode_prompts(checked)
        pruned, keep = self._shortened(checked, encoded)
        return pruned, PruningRecord(
            keep, slices_by_prompt(checked, encoded.records, self.family.image_token_id), encoded.seconds
        )

    def _encode_prompts(self, checked: dict[str, Any]) -> PrunedSlices:
        """Encode the slices of all prompts. A pruner that needs the question gets that of each prompt."""
        if self.pruner is None or not self.pruner.needs_question:
            return self.encode(**checked)
        slices = [SliceRecord.unpruned(grid) for grid in self.family.token_grids(checked)]
        by_prompt = slices_by_prompt(checked, slices, self.family.image_token_id)
        embed, start, parts = self.model.get_input_embeddings(), 0, []
        for ids, mask, own in zip(checked["input_ids"], checked["attention_mask"], by_prompt, strict=True):
            if not own:
                continue
            visual = (ids == self.family.image_token_id).nonzero()
            question = ids[int(visual[-1]) + 1 :][mask[int(visual[-1]) + 1 :].bool()]
            images = self.family.slice_inputs(checked, start, start + len(own))
            parts += encode_and_prune_each(
                self.family, [self.pruner], images, self.vision_batch_size, question=embed(question)
            )
            start += len(own)
        return PrunedSlices.joined(parts)

    def _shortened(self, checked: dict[str, Any], encoded: PrunedSlices) -> tuple[dict[str, Any], torch.Tensor]:
        """Return the inputs of the language model, and the mask of the kept tokens in the unpruned prompt."""
        keep = keep_mask(checked, self.family.image_token_id, encoded.keep)
        # add the token types that the processor would return: without them some models treat visual tokens as text
        complete = {**self.family.token_types(checked["input_ids"]), **checked}
        pruned = prune_prompt(complete, keep, self.family, encoded.grids, self.preserve_position_ids)
        # a study that was saved lies on the CPU. New lists and a new output: generate expands them in place for beams
        tokens, *layers = (
            [rows.to(self.model.device) for rows in one] for one in (encoded.tokens, *encoded.deepstack_features)
        )
        pruned["mm_encoder_outputs"] = {"image": self.family.encoder_output(tokens, layers)}
        return pruned, keep

    def _follow_up(self, checked: dict[str, Any], cache: Any) -> tuple[dict[str, Any], PruningRecord]:
        """Return the inputs and the record of a follow-up turn, whose visual tokens are in the cache."""
        if cache not in self._cached:
            raise PromptError(
                "past_key_values is not a cache that this network's generate returned for a pruned prompt; pass that "
                "cache, or the images without a cache"
            )
        further, keep = self._cached[cache].follow_up(checked)
        others = {name: value for name, value in checked.items() if name not in self.family.image_inputs}
        return {**others, **further}, PruningRecord(keep, [[] for _ in keep])

    def _on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        device = self.model.device
        return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def _report(on_record: Callable[[PruningRecord], object] | None, record: PruningRecord) -> None:
    if on_record is not None:
        on_record(record)
