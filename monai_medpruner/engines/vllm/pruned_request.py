# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A question about an encoded study as vLLM takes it: ids with one placeholder a slice, rows and their positions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from monai_medpruner.engines.conversation import Conversation, conversation_text
from monai_medpruner.errors import PromptError, SettingsError
from monai_medpruner.networks import Checkpoint, EncodedStudy, PrunedVLM

__all__ = ["SLICE_NAME", "PrunedRequest", "pruned_request", "slice_name"]

#: what :func:`slice_name` returns
SLICE_NAME = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class PrunedRequest:
    """A prompt about pruned slices.

    Args:
        ids: tokens of the prompt, with one placeholder for each slice.
        rows: per slice the rows of its kept tokens, ``(K_i, width)``; DeepStack rows follow the token in the same row.
        positions: per slice the rotary positions (time, row, column) of its kept tokens from the slice's start, int64
            ``(K_i, 3)``.
        extents: how many positions each whole slice takes.
        image_token_id: the placeholder.
    """

    ids: Sequence[int]
    rows: Sequence[torch.Tensor] = field(repr=False)
    positions: Sequence[torch.Tensor] = field(repr=False)
    extents: Sequence[int]
    image_token_id: int

    @property
    def counts(self) -> list[int]:
        """Number of kept tokens of each slice."""
        return [len(one) for one in self.positions]

    @property
    def length(self) -> int:
        """Number of tokens of the prompt with all kept tokens."""
        return len(self.ids) + sum(self.counts) - len(self.counts)

    @property
    def full_ids(self) -> list[int]:
        """Tokens of the prompt with one placeholder for each kept token."""
        counts = iter(self.counts)
        return [one for token in self.ids for one in [token] * (next(counts) if token == self.image_token_id else 1)]

    def image_fields(self) -> dict[str, torch.Tensor]:
        """The fields of all slices, as :mod:`~monai_medpruner.engines.vllm.pruned_images` names them."""
        return {
            "image_embeds": torch.cat(list(self.rows)),
            "kept_count": torch.tensor(self.counts),
            "kept_positions": torch.cat(list(self.positions)).flatten(),
            "kept_extent": torch.tensor(list(self.extents)),
            "kept_written": torch.ones(len(self.extents), dtype=torch.int64),
        }

    def slice_names(self) -> list[str]:
        """For each slice the hash of everything that vLLM computes from it, so that no two slices share a cache entry.

        vLLM keys its prefix cache and its cache of encoder outputs by these names and the ids.
        """
        return [slice_name(*one) for one in zip(self.rows, self.positions, self.extents, strict=True)]


def slice_name(rows: torch.Tensor, positions: torch.Tensor, extent: int) -> str:
    """Return the SHA-256 hash of a slice as the language model reads it, 64 hexadecimal digits.

    Args:
        rows: of the kept tokens, ``(K, width)``.
        positions: from the slice's start, int64 ``(K, 3)``.
        extent: how many positions the whole slice takes.
    """
    found = hashlib.sha256(f"{rows.dtype} {tuple(rows.shape)} {extent}".encode())
    found.update(rows.contiguous().view(torch.uint8).numpy().tobytes())
    found.update(positions.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def pruned_request(study: EncodedStudy, conversation: Conversation, checkpoint: Checkpoint) -> PrunedRequest:
    """Return the prompt of a conversation about an encoded study.

    Args:
        study: encoded and pruned.
        conversation: whose last question is asked.
        checkpoint: of the model whose prompt it is; its language model is not needed.

    Raises:
        QuestionError: a turn contains special tokens of the model.
        PromptError: the chat template writes another number of images than there are slices.
        SettingsError: the model's positions are one-dimensional and are to be preserved, for which vLLM has no way.
    """
    family, tokenizer = checkpoint.family, checkpoint.tokenizer
    text = conversation_text(conversation, tokenizer, family, study.grids, study.record.slice_indices)
    inputs = dict(tokenizer(text, add_special_tokens=False, return_tensors="pt"))
    model = PrunedVLM(checkpoint.model, preserve_position_ids=study.preserve_position_ids)
    prompt = model.pruned_prompt(study.slices, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    ids = prompt["input_ids"][0].cpu()
    # three rotary axes, after a row that counts; or one axis, which stands for all
    axes = prompt["position_ids"].cpu()
    axes = axes[1:4, 0] if axes.ndim == 3 else axes.expand(3, -1)
    if prompt["position_ids"].ndim == 2 and not torch.equal(axes[0], torch.arange(len(ids))):
        raise SettingsError(
            f"vLLM counts the positions of {checkpoint.name} itself, so kept tokens cannot keep those of the unpruned "
            "prompt: leave preserve_position_ids out"
        )
    rows = [torch.cat(list(one), -1).cpu() for one in zip(study.tokens, *study.deepstack_features, strict=True)]
    return _with_positions(ids, axes, rows, family.image_token_id)


def _with_positions(ids: torch.Tensor, axes: torch.Tensor, rows: list[torch.Tensor], token: int) -> PrunedRequest:
    """Split a prompt into its slices.

    Args:
        ids: of the pruned prompt, ``(L,)``.
        axes: rotary positions, ``(3, L)``.
        rows: of each slice.
        token: the placeholder.
    """
    placeholders = (ids == token).nonzero().flatten()
    groups = placeholders.split([len(one) for one in rows])
    short, positions, extents, done, start = [], [], [], 0, 0
    for group in groups:
        first, last = int(group[0]), int(group[-1])
        if last - first + 1 != len(group):
            raise PromptError("the placeholders of a slice do not follow each other")
        short += [*ids[done:first].tolist(), token]
        start += first - done
        after = int(axes[0, last + 1]) if last + 1 < len(ids) else start
        positions.append((axes[:, group] - start).T.contiguous())
        extents.append(after - start)
        done, start = last + 1, after
    short += ids[done:].tolist()
    return PrunedRequest(short, rows, positions, extents, token)
