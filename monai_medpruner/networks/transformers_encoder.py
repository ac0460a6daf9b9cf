# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The encoder side of the seam: a volume to an encoded study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from typing import Any, Literal, Protocol

import torch
from monai.data import MetaTensor
from torch import nn

from monai_medpruner.errors import SettingsError
from monai_medpruner.memory import is_out_of_memory, release_memory
from monai_medpruner.networks.checkpoint import Checkpoint
from monai_medpruner.networks.encoded_study import EncodedStudy
from monai_medpruner.networks.encoding import encode_and_prune_each, encode_scored, prune_scored
from monai_medpruner.networks.fast_images import fast_image_inputs
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.networks.scored_slices import ScoredSlices
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.networks.study_key import StudyKey, VolumeSource
from monai_medpruner.networks.study_record import study_record
from monai_medpruner.networks.volume_limit import VolumeLimit, volume_limit
from monai_medpruner.pruners import TokenBudget, TokenPruner, pruner_settings
from monai_medpruner.results import StageTimes
from monai_medpruner.terminal_text import package_logger
from monai_medpruner.transforms.body_tokens import body_tokens

__all__ = ["SliceEncoder", "TransformersEncoder"]

logger = package_logger(__name__)


class SliceEncoder(Protocol):
    """Encodes and prunes the slices of a volume; needs no language model."""

    def encode(self, volume: torch.Tensor) -> EncodedStudy:
        """Encode and prune the slices of a volume ``(C, H, W, D)`` once, for any number of questions."""

    def for_question(self, study: EncodedStudy, question: str) -> EncodedStudy:
        """Prune for a question; the study itself where the pruner does not need it."""

    def describe(self) -> dict[str, Any]:
        """What encodes and prunes, as JSON holds it: ``model``, ``pruner``, and what else there is."""


class TransformersEncoder(nn.Module):
    """Vision encoder and projector of a stock Hugging Face model, with a pruner behind them.

    Args:
        checkpoint: loaded at the first use; its vision part is enough.
        pruner: which tokens to keep; None keeps all.
        vision_batch_size: slices encoded at once; None takes as many as hold 32,768 patches.
        preserve_position_ids: see :class:`~monai_medpruner.networks.PrunedVLM`.
        token_budget: visual tokens of all kept slices together, before tokens are pruned; slices are shrunk to equal
            shares of it. None leaves the size of the slices to the image processor.
        image_processing: "fast" resizes and normalizes slices in batches, with the values of the stock image processor
            bit for bit, and leaves processors and settings that it does not know to the stock one; "stock" is the image
            processor of transformers, slice by slice.
        budget: limits the tokens that are kept of a volume, and by it the slices that are encoded; None, or one without
            a limit, is no budget. It wins over what the pruner would keep by itself; what is given up for it is noted
            in the record.
        preset: name of the settings that were chosen together, for the record.

    Raises:
        SettingsError: ``token_budget`` is not positive, or ``image_processing`` has another value.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        pruner: TokenPruner | None = None,
        *,
        vision_batch_size: int | None = None,
        preserve_position_ids: bool | None = None,
        token_budget: int | None = None,
        image_processing: Literal["fast", "stock"] = "fast",
        budget: TokenBudget | None = None,
        preset: str | None = None,
    ) -> None:
        super().__init__()
        if image_processing not in ("fast", "stock"):
            raise SettingsError(f"image_processing must be 'fast' or 'stock', got {image_processing!r}")
        if token_budget is not None and token_budget < 1:
            raise SettingsError(f"token_budget must be at least 1, got {token_budget}")
        self.checkpoint = checkpoint
        self.pruner = pruner
        self.vision_batch_size = vision_batch_size
        self.preserve_position_ids = preserve_position_ids
        self.token_budget = token_budget
        self.image_processing = image_processing
        self.budget = budget if budget is not None and budget.limits_tokens else None
        self.preset = preset

    def encode(self, volume: torch.Tensor) -> EncodedStudy:
        """Encode and prune the slices of a volume once, for any number of questions.

        Args:
            volume: ``(C, H, W, D)``, C being 1 or 3, slices along D, intensities in [0, 1]. The metadata of a
                MetaTensor that this package's transforms wrote go into the record.

        Raises:
            IntensityUnitsError: intensities lie outside [0, 1].
            BudgetError: the budget is below what one slice keeps at least.
        """
        return self.encode_each(volume, [self.pruner])[0]

    @torch.no_grad()
    def encode_each(self, volume: torch.Tensor, pruners: Sequence[TokenPruner | None]) -> list[EncodedStudy]:
        """Encode the slices of a volume once and prune them with several pruners, in place of the encoder's own.

        Where memory runs out, a second attempt encodes a quarter of the slices at a time, with a warning and a note in
        the records.
        """
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        count = len(meta.get("kept_indices", range(volume.shape[-1])))
        kept = volume[..., :count]  # a batch of volumes is padded behind the kept slices
        if self.budget is None:
            return self._encode_each(kept, pruners)
        limits = self._limits(kept, pruners, self.budget)
        if len({limit.slices for limit in limits}) == 1:
            return self._encode_each(kept, pruners, limits[0])
        return [self._encode_each(kept, [one], limit)[0] for one, limit in zip(pruners, limits, strict=True)]

    def _encode_each(
        self, volume: torch.Tensor, pruners: Sequence[TokenPruner | None], limit: VolumeLimit | None = None
    ) -> list[EncodedStudy]:
        """Encode the slices of a volume, as many as the limit allows, and prune them with each pruner."""
        source = VolumeSource.of_volume(volume)  # before slices are taken away for the budget, which the key has
        max_tokens = unpruned = None
        if limit is not None:
            volume, max_tokens, unpruned = limit.selected(volume), limit.tokens, limit.slice_tokens
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        seconds = StageTimes()
        with seconds.stage("encode"):
            inputs = self.image_inputs(volume)
            if unpruned is None and "uncropped_size" in meta:
                # of cropped or shrunk slices, the record has to know how many tokens whole ones would have
                unpruned = self.unpruned_tokens(*map(int, meta["uncropped_size"]))
        positions = meta.get("slice_positions_mm")
        size = (int(volume.shape[1]), int(volume.shape[2]))
        inside = body_tokens(meta, size, self.checkpoint.family.token_grids(inputs)) if "body_mask" in meta else None
        options = {"slice_positions_mm": positions, "max_tokens": max_tokens, "inside": inside}
        pruned, pending, notes = self._encode_in_memory(volume.shape[-1], pruners, inputs, options)
        settings = self._settings(meta)
        studies = []
        for pruner, one, scored in zip(pruners, pruned, pending, strict=True):
            spent = StageTimes(dict(meta.get("seconds", ())))
            spent.add(seconds)
            spent.add(one.seconds)
            described = pruner_settings(pruner)
            own = {**settings, "pruner": described}
            record = study_record(volume, source.content, one.records, own, spent, notes, unpruned)
            studies.append(
                EncodedStudy(
                    key=StudyKey.of(source, {**self.describe(), "pruner": described}),
                    record=record,
                    tokens=tuple(one.tokens),
                    deepstack_features=tuple(tuple(layer) for layer in one.deepstack_features),
                    preserve_position_ids=self.preserve_position_ids,
                    pending=None if scored is None or pruner is None else (pruner, scored),
                )
            )
        return studies

    @torch.no_grad()
    def for_question(self, study: EncodedStudy, question: str) -> EncodedStudy:
        """Prune a study for a question; the study itself where its pruner does not need the question.

        Raises:
            SettingsError: the checkpoint was loaded without the language model, whose embeddings of the question the
                pruner needs.
        """
        if study.pending is None:
            return study
        if self.checkpoint.parts != "all":
            raise SettingsError(
                "the pruner needs the question's embeddings: load the checkpoint with parts='all', which the engine "
                "vllm does not, or use another pruner"
            )
        pruner, scored = study.pending
        model, tokenizer = self.checkpoint.model, self.checkpoint.tokenizer
        ids = tokenizer(question, add_special_tokens=False, return_tensors="pt")["input_ids"]
        embedding = model.get_input_embeddings()(ids.to(model.device))[0]
        max_tokens = None if self.budget is None else self.budget.tokens(study.record.unpruned_tokens)
        one = prune_scored(self.checkpoint.family, pruner, scored, embedding, max_tokens)
        key = study.key.for_question(question)
        seconds = {**study.record.seconds, "select": one.seconds["select"]}
        record = replace(study.record, slices=tuple(one.records), seconds=seconds, question=key.question)
        layers = tuple(tuple(layer) for layer in one.deepstack_features)
        return replace(study, key=key, record=record, tokens=tuple(one.tokens), deepstack_features=layers, pending=None)

    def image_inputs(self, volume: torch.Tensor) -> dict[str, Any]:
        """The image inputs of the model: each slice of a volume as an 8-bit image through the image processor.

        Args:
            volume: ``(C, H, W, D)``, C being 1 or 3, intensities in [0, 1].

        Raises:
            IntensityUnitsError: intensities lie outside [0, 1].
        """
        processor = self.checkpoint.image_processor
        size: dict[str, Any] = {}
        if self.token_budget is not None:
            size = self.checkpoint.family.image_size_for(processor, self.token_budget // volume.shape[-1])
        device = self.checkpoint.model.device
        if self.image_processing == "fast":
            fast = fast_image_inputs(processor, volume, device, **size)
            if fast is not None:
                return fast
        inputs = dict(processor(images=slice_images(volume), return_tensors="pt", **size))
        return {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in inputs.items()}

    def with_pruner(self, pruner: TokenPruner | None) -> TransformersEncoder:
        """The same encoder, with the same checkpoint, and another pruner behind it."""
        other = copy(self)
        other.pruner = pruner
        return other

    def unpruned_tokens(self, height: int, width: int) -> int:
        """Visual tokens of one slice, at the image processor's own size and without pruning.

        Args:
            height: rows of the slice, in voxels.
            width: its columns.
        """
        inputs = self.checkpoint.image_processor(
            images=slice_images(torch.zeros(1, height, width, 1)), return_tensors="pt"
        )
        rows, columns = self.checkpoint.family.token_grids(dict(inputs))[0]
        return rows * columns

    def describe(self) -> dict[str, Any]:
        """What encodes and prunes: ``model``, the checkpoint with its settings, ``pruner``, ``budget``, ``preset``."""
        model = {**self.checkpoint.describe(), "token_budget": self.token_budget}
        model |= {"preserve_position_ids": self.preserve_position_ids, "image_processing": self.image_processing}
        budget = None if self.budget is None else asdict(self.budget)
        return {"model": model, "pruner": pruner_settings(self.pruner), "budget": budget, "preset": self.preset}

    def _settings(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.describe(), "preprocessing": list(meta.get("preprocessing", ()))}

    def _limits(
        self, volume: torch.Tensor, pruners: Sequence[TokenPruner | None], budget: TokenBudget
    ) -> list[VolumeLimit]:
        """What the budget allows each pruner of a volume."""
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        encoded = self.unpruned_tokens(int(volume.shape[1]), int(volume.shape[2]))
        whole = self.unpruned_tokens(*map(int, meta["uncropped_size"])) if "uncropped_size" in meta else encoded
        return [volume_limit(budget, pruner, volume, whole, encoded) for pruner in pruners]

    def _encode_in_memory(
        self,
        count: int,
        pruners: Sequence[TokenPruner | None],
        inputs: dict[str, Any],
        options: dict[str, Any],
    ) -> tuple[list[PrunedSlices], list[ScoredSlices | None], tuple[str, ...]]:
        """Encode and prune; where memory runs out, once more with fewer slices at a time, which a note tells."""
        batch_size = self.vision_batch_size
        try:
            return *self._encode_and_prune(pruners, inputs, batch_size, **options), ()
        except Exception as error:
            at_once = min(batch_size or count, count)
            if not is_out_of_memory(error) or at_once == 1:
                raise
            fewer = max(1, at_once // 4)
            note = (
                f"out of memory ({type(error).__name__}) with up to {at_once} slices in the encoder at once; tried "
                f"again with {fewer}"
            )
        # outside the handler, whose traceback holds on to the memory
        logger.warning(note)
        release_memory()
        return *self._encode_and_prune(pruners, inputs, fewer, **options), (note,)

    def _encode_and_prune(
        self,
        pruners: Sequence[TokenPruner | None],
        inputs: dict[str, Any],
        batch_size: int | None,
        slice_positions_mm: Sequence[float] | None,
        max_tokens: int | None,
        inside: Sequence[torch.Tensor] | None,
    ) -> tuple[list[PrunedSlices], list[ScoredSlices | None]]:
        """What each pruner leaves; for one that needs the question every token, and what it needs later."""
        family = self.checkpoint.family
        later = [pruner for pruner in pruners if pruner is not None and pruner.needs_question]
        if not later:
            pruned = encode_and_prune_each(
                family,
                pruners,
                inputs,
                batch_size,
                slice_positions_mm=slice_positions_mm,
                max_tokens=max_tokens,
                inside=inside,
            )
            return pruned, [None for _ in pruners]
        scored = encode_scored(family, pruners, inputs, batch_size, slice_positions_mm, inside)
        waiting = [scored if pruner in later else None for pruner in pruners]
        now = [None if pruner in later else pruner for pruner in pruners]
        return [prune_scored(family, pruner, scored, max_tokens=max_tokens) for pruner in now], waiting
