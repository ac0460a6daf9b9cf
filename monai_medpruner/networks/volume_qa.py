# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The MONAI-facing network: a volume and questions about it to answers."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import nn

from monai_medpruner.errors import PromptError, QuestionError, SettingsError, VolumeShapeError
from monai_medpruner.memory import is_out_of_memory, release_memory
from monai_medpruner.networks.answer_streamer import AnswerStreamer
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.conversation import conversation_text
from monai_medpruner.networks.encoding import PrunedSlices
from monai_medpruner.networks.pruned_vlm import PrunedVLM
from monai_medpruner.networks.record import StageTimes, VolumeRecord
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.networks.volume_prompt import VolumePrompt
from monai_medpruner.pruners import TokenPruner

__all__ = ["EncodedVolume", "VolumeQA"]

logger = logging.getLogger(__name__)

TINY = "tiny"


@dataclass
class EncodedVolume:
    """A volume that is encoded and pruned, ready for questions.

    Args:
        slices: the tokens that are kept.
        record: what was kept; each answer adds its times.
        asked: questions asked so far.
    """

    slices: PrunedSlices
    record: VolumeRecord
    asked: int = 0


class VolumeQA(nn.Module):
    """Answers questions about volumes with a pruned vision-language model.

    The model is loaded when it is first needed, not here. A volume is encoded once, whatever the number of questions.

    Args:
        model_id: Hub id, local checkpoint folder, or "tiny": a shrunk model with random weights, whose answers mean
            nothing, written and loaded like a real checkpoint.
        pruner: what tokens to keep; None keeps all.
        revision: commit of a Hub checkpoint.
        prompt: how the volume is written into the prompt.
        max_new_tokens: length limit of an answer; decoding is greedy, as in the paper. The default, 256, is M3D's.
        device: None takes the first GPU where there is one, else the CPU.
        dtype: of the weights, or its name; None takes bfloat16 on a GPU and float32 on a CPU.
        attn_implementation: None leaves it to transformers.
        vision_batch_size: slices encoded at once; see :class:`PrunedVLM`.
        preserve_position_ids: whether kept tokens keep their positions; see :class:`PrunedVLM`.
        token_budget: visual tokens of all kept slices together, before tokens are pruned; slices are shrunk to their
            equal shares. None leaves the size of the slices to the image processor.
        stream: called with each piece of an answer's text as it is generated, and whether the answer ends with it.
        tiny_model_type: the family of the tiny model.

    Raises:
        SettingsError: ``max_new_tokens`` or ``token_budget`` is not positive.
    """

    def __init__(
        self,
        model_id: str,
        pruner: TokenPruner | None = None,
        *,
        revision: str | None = None,
        prompt: VolumePrompt | None = None,
        max_new_tokens: int = 256,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        vision_batch_size: int | None = None,
        preserve_position_ids: bool | None = None,
        token_budget: int | None = None,
        stream: Callable[[str, bool], None] | None = None,
        tiny_model_type: str = "qwen3_vl",
    ) -> None:
        super().__init__()
        if max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if token_budget is not None and token_budget < 1:
            raise SettingsError(f"token_budget must be at least 1, got {token_budget}")
        self.model_id = str(model_id)
        self.revision = revision
        self.pruner = pruner
        self.prompt = prompt or VolumePrompt()
        self.max_new_tokens = max_new_tokens
        self.token_budget = token_budget
        self.stream = stream
        self.tiny_model_type = tiny_model_type
        self._loading: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "attn_implementation": attn_implementation,
            "vision_batch_size": vision_batch_size,
            "preserve_position_ids": preserve_position_ids,
        }
        self._vlm: PrunedVLM | None = None
        self._image_processor: Any = None
        self._tokenizer: Any = None
        self._lock = threading.Lock()
        self._last = threading.local()

    @property
    def vlm(self) -> PrunedVLM:
        """The pruned model; loaded at the first use."""
        with self._lock:
            if self._vlm is None:
                if self.model_id == TINY:
                    from monai_medpruner.testing import save_tiny_checkpoint

                    with tempfile.TemporaryDirectory() as folder:
                        self._load(str(save_tiny_checkpoint(self.tiny_model_type, folder)), None)
                else:
                    self._load(self.model_id, self.revision)
        return self._vlm  # type: ignore[return-value]

    @property
    def image_processor(self) -> Any:
        """The checkpoint's image processor; loaded with the model."""
        return self.vlm and self._image_processor

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; loaded with the model."""
        return self.vlm and self._tokenizer

    def _load(self, path_or_id: str, revision: str | None) -> None:
        self._image_processor, self._tokenizer = load_processors(path_or_id, revision=revision)
        self._vlm = PrunedVLM.from_pretrained(path_or_id, self.pruner, revision=revision, **self._loading)

    @property
    def records(self) -> list[VolumeRecord]:
        """What the last call in this thread kept, one entry per volume."""
        return getattr(self._last, "records", [])

    @property
    def settings(self) -> dict[str, Any]:
        """What the loaded model is and runs on, for reports."""
        model = self.vlm.model
        return {
            "revision": None if self.model_id == TINY or Path(self.model_id).is_dir() else self.revision,
            "model_type": model.config.model_type,
            "random_weights": self.model_id == TINY,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "image_processor": type(self._image_processor).__name__,
        }

    @torch.no_grad()
    def forward(self, volume: torch.Tensor, question: list[list[str]] | None = None) -> list[list[str]] | torch.Tensor:
        """Answer questions about volumes.

        Args:
            volume: shape ``(B, C, H, W, D)``, slices along D, C being 1 or 3, intensities in [0, 1]. The numbers of the
                slices come from ``kept_indices`` in the metadata of a MetaTensor where it is there, else they count
                from 0.
            question: per volume a list of questions.

        Returns:
            The answers in the nesting of the questions; without questions the projected tokens that are kept, float32
            ``(B, C, N)``, zero-padded to the volume with the most.

        Raises:
            VolumeShapeError: the volume has another shape.
            IntensityUnitsError: intensities lie outside [0, 1].
            QuestionError: a question is not text, is empty, or holds special tokens of the model.
            PromptError: the pruned prompt is longer than the model can read.
        """
        if volume.ndim != 5 or volume.shape[1] not in (1, 3):
            raise VolumeShapeError(f"expected volumes of shape (B, 1 or 3, H, W, D), got {tuple(volume.shape)}")
        if question is not None and len(question) != len(volume):
            raise QuestionError(f"expected a list of questions for each of {len(volume)} volumes, got {len(question)}")
        self._last.records = []
        studies = [self.encode(volume[index]) for index in range(len(volume))]
        self._last.records = [study.record for study in studies]
        if question is None:
            tokens = [torch.cat(study.slices.tokens).float() for study in studies]
            return nn.utils.rnn.pad_sequence(tokens, batch_first=True).transpose(1, 2)
        return [[self.answer(study, one) for one in asked] for study, asked in zip(studies, question, strict=True)]

    def encode(self, volume: torch.Tensor) -> EncodedVolume:
        """Encode and prune the slices of a volume once, for any number of questions.

        Args:
            volume: shape ``(C, H, W, D)``; see :meth:`forward`.

        Raises:
            IntensityUnitsError: intensities lie outside [0, 1].
        """
        return self.encode_each(volume, [self.pruner])[0]

    @torch.no_grad()
    def encode_each(self, volume: torch.Tensor, pruners: Sequence[TokenPruner | None]) -> list[EncodedVolume]:
        """Encode the slices of a volume once and prune them in several ways, in place of the network's own.

        Where memory runs out, a second attempt encodes a quarter of the slices at a time, with a warning and a note in
        the records.
        """
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        indices = [int(index) for index in meta.get("kept_indices", range(volume.shape[-1]))]
        vlm = self.vlm
        seconds = StageTimes()
        with seconds.stage("encode"):
            # a batch of volumes is padded behind the kept slices
            inputs = self.image_inputs(volume[..., : len(indices)])
        notes: list[str] = []
        try:
            encoded = vlm.encode_each(pruners, **inputs)
        except Exception as error:
            at_once = min(vlm.vision_batch_size or len(indices), len(indices))
            if not is_out_of_memory(error) or at_once == 1:
                raise
            notes.append(
                f"out of memory ({type(error).__name__}) with up to {at_once} slices in the encoder at once; tried "
                f"again with {max(1, at_once // 4)}"
            )
        if notes:  # outside the handler, whose traceback holds on to the memory
            logger.warning(notes[0])
            release_memory()
            encoded = vlm.encode_each(pruners, max(1, at_once // 4), **inputs)
        total = int(meta.get("source_depth", len(indices)))
        studies = []
        for one in encoded:
            spent = StageTimes(seconds)
            spent.add(one.seconds)
            record = VolumeRecord(total, list(indices), one.records, [spent], list(notes))
            studies.append(EncodedVolume(one, record))
        return studies

    def image_inputs(self, volume: torch.Tensor) -> dict[str, Any]:
        """The image inputs of the model: each slice of a volume as an 8-bit image through the image processor.

        Args:
            volume: shape ``(C, H, W, D)``, C being 1 or 3, intensities in [0, 1].

        Raises:
            IntensityUnitsError: intensities lie outside [0, 1].
        """
        images = slice_images(volume)
        return dict(self.image_processor(images=images, return_tensors="pt", **self._image_size(len(images))))

    def _image_size(self, slices: int) -> dict[str, Any]:
        """Arguments of the image processor that give every slice its share of the token budget."""
        if self.token_budget is None:
            return {}
        return self.vlm.family.image_size_for(self._image_processor, self.token_budget // slices)

    @torch.no_grad()
    def answer(self, study: EncodedVolume, question: str | Sequence[str]) -> str:
        """Answer one question about an encoded volume and note the times in its record.

        Args:
            study: of :meth:`encode`.
            question: plain text; or a conversation, as in :func:`~.conversation.conversation_text`.

        Raises:
            QuestionError: the question is not text, is empty, or holds special tokens of the model.
            PromptError: the pruned prompt is longer than the model can read.
        """
        slices, record = study.slices, study.record
        if study.asked:
            record.seconds.append(StageTimes(encode=0.0, select=0.0))
        study.asked += 1
        with record.seconds[-1].stage("prefill"):
            text = self.prompt_text(slices.grids, record.slice_indices, question)
            inputs = self._tokenizer(text, add_special_tokens=False, return_tensors="pt")
            length = inputs["input_ids"].shape[1]
            self._check_length(length - sum(int((~keep).sum()) for keep in slices.keep))
        output = self.vlm.generate(
            encoded=slices,
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            streamer=None if self.stream is None else AnswerStreamer(self._tokenizer, self.stream),
        )
        spent = self.vlm.record.seconds  # type: ignore[union-attr]
        record.seconds[-1].add({stage: spent[stage] for stage in ("prefill", "decode")})
        return self._tokenizer.decode(output[0, length:], skip_special_tokens=True).strip()

    def prompt_text(self, grids: list[tuple[int, int]], slice_indices: list[int], question: str | Sequence[str]) -> str:
        """The prompt of a volume as text; see :func:`~.conversation.conversation_text`."""
        return conversation_text(self.prompt, self.tokenizer, self.vlm.family, grids, slice_indices, question)

    def _check_length(self, length: int) -> None:
        limit = self.vlm.model.config.get_text_config().max_position_embeddings
        if length + self.max_new_tokens > limit:
            raise PromptError(
                f"the pruned prompt has {length} tokens, and {self.max_new_tokens} more may be generated, but the model"
                f" reads {limit} at most. Keep fewer slices (a higher gamma, a range of slices) or fewer tokens (a"
                " lower tau)"
            )
