# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""vLLM in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.engines.vllm.prompt_embeddings import prompt_embeddings
from monai_medpruner.engines.vllm.pruned_request import PrunedRequest
from monai_medpruner.engines.vllm.vllm_engine import Completion, VLLMEngine
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint, EncodedStudy

__all__ = ["OfflineVLLMEngine"]


class OfflineVLLMEngine(VLLMEngine):
    """vLLM in this process, loaded on first use.

    Args:
        checkpoint: see :class:`VLLMEngine`.
        max_new_tokens: maximum length of an answer.
        language_model: what vLLM loads. None takes the checkpoint itself. For VideoLLaMA3, which vLLM does not know, it
            is the folder that ``medpruner export_language_model`` wrote.
        options: further arguments of ``vllm.LLM``, such as ``gpu_memory_utilization``.

    Raises:
        SettingsError: ``max_new_tokens`` is not positive, or vLLM is not installed.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_new_tokens: int = 256,
        language_model: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(checkpoint, max_new_tokens=max_new_tokens)
        if find_spec("vllm") is None:  # said before a study is encoded
            raise SettingsError("the engine vllm needs the package vllm: pip install 'monai-medpruner[vllm]'")
        self.language_model = None if language_model is None else str(language_model)
        self.options = dict(options or {})
        self._llm: Any = None

    @property
    def llm(self) -> Any:
        """The ``vllm.LLM``.

        Raises:
            SettingsError: the language model is not exported, or vLLM cannot be imported.
        """
        if self._llm is None:
            self._llm = self._load()
        return self._llm

    def _load(self) -> Any:
        if self.by_embeddings and self.language_model is None:
            raise SettingsError(
                "vLLM does not know VideoLLaMA3: write its language model with 'medpruner export_language_model "
                "MODEL FOLDER', and give the folder as language_model"
            )
        try:
            from vllm import LLM
        except ImportError as error:
            raise SettingsError(
                f"vLLM cannot be imported ({error}); see docs/serving.md for its installation"
            ) from error
        images: dict[str, Any] = {"enable_mm_embeds": True, "limit_mm_per_prompt": {"image": 0, "video": 0}}
        if self.checkpoint.model.config.model_type == "gemma3":
            images["limit_mm_per_prompt"] = {"image": 0}
        given: dict[str, Any] = {
            "model": self.language_model or self.checkpoint.path_or_id,
            "revision": self.checkpoint.revision,
            "dtype": str(self.checkpoint.model.dtype).removeprefix("torch."),
            "seed": 0,
            "disable_log_stats": False,
            **({"enable_prompt_embeds": True} if self.by_embeddings else images),
        }
        return LLM(**{**given, **self.options})

    def _complete(
        self,
        asked: Sequence[tuple[EncodedStudy, Conversation]],
        requests: Sequence[PrunedRequest],
        limits: Sequence[int],
    ) -> list[Completion]:
        from vllm import SamplingParams

        return self.complete(requests, [SamplingParams(temperature=0, max_tokens=limit) for limit in limits])

    def complete(self, requests: Sequence[PrunedRequest], sampling: Any) -> list[Completion]:
        """Let vLLM generate for some prompts at once.

        Args:
            requests: the prompts.
            sampling: a ``vllm.SamplingParams``, or one for each prompt.
        """
        outputs = self.llm.generate([self._prompt(one) for one in requests], sampling, use_tqdm=False)
        return [_completion(one) for one in outputs]

    def _prompt(self, request: PrunedRequest) -> dict[str, Any]:
        if self.by_embeddings:
            return {"prompt_embeds": prompt_embeddings(request, self.language_model or "")}
        return {
            "prompt_token_ids": list(request.ids),
            "multi_modal_data": {"image": request.image_fields()},
            "multi_modal_uuids": {"image": request.slice_names()},
        }

    def describe(self) -> dict[str, Any]:
        """Return the engine's name and settings as JSON values."""
        return {**super().describe(), "where": "this process"}


def _completion(output: Any) -> Completion:
    one, times = output.outputs[0], output.metrics
    seconds = {"decode": 0.0}
    if times is not None:
        seconds = {
            "prefill": max(0.0, times.first_token_ts - times.queued_ts),
            "decode": max(0.0, times.last_token_ts - times.first_token_ts),
        }
    logprobs = [step[token].logprob for step, token in zip(one.logprobs or (), one.token_ids, strict=False)]
    cut = one.finish_reason == "length"
    return Completion(list(one.token_ids), cut, output.num_cached_tokens or 0, seconds, logprobs)
