# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""CDPruner: diverse tokens that have to do with the question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.base import SliceTokens
from monai_medpruner.pruners.fixed_share import SIMILARITY_STEP, FixedSharePruner, cosine_similarity, in_steps
from monai_medpruner.pruners.signals import QuestionEmbedding, Signal

__all__ = ["CDPrunerPruner"]

# the least relevance of a slice's tokens, so that none of them is out of the question; the released code's
_LEAST_RELEVANCE = 1e-6


@dataclass(frozen=True)
class CDPrunerPruner(FixedSharePruner):
    """Keep tokens that are diverse and relevant to the question.

    CDPruner (Zhang et al., NeurIPS 2025, arXiv 2506.10967) takes the tokens for the items of a determinantal point
    process with the kernel ``diag(r) S diag(r)``, S being the cosine similarity of the tokens and r their relevance.
    It approximates the most likely set of K tokens by the fast greedy algorithm (Chen et al., NeurIPS 2018). Deviations
    from the paper and its released code:

    - The relevance is the cosine similarity of a projected token with the language model's input embeddings, averaged
      over the question's tokens. The released code takes CLIP's image and text embeddings, and their similarity with
      its sign changed; our encoders have no text encoder beside them.
    - It is scaled to ``(0, 1]`` over each slice, where the code scales it over all images of a call.
    - A token that adds nothing to the volume spanned by those chosen before (less than 2^-16 of its own) comes after
      all others, by its relevance; the code divides by that number. Volumes are compared in steps of 2^-16, so that
      copies tie and the first is taken, whatever the batch.
    - The number of kept tokens is a share of the slice's.

    Nothing is merged, as in the source, unless ``contextual_ratio`` says so. ``merge_space`` must be "projected", since
    the encoder's tokens cannot be compared with the question's.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_space != "projected":
            raise SettingsError(
                f"merge_space must be 'projected', got {self.merge_space!r}: CDPruner compares tokens with the question"
            )

    @property
    def signals(self) -> frozenset[Signal]:
        """The question."""
        return frozenset({QuestionEmbedding()})

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return each token's relevance to the question, float32 ``(S, M)`` in ``(0, 1]``; 1 where all are equal.

        Raises:
            SettingsError: the question holds no token.
        """
        question = slices.signal(QuestionEmbedding())
        if len(question) == 0:
            raise SettingsError("CDPruner needs a question of at least one token, and got an empty one")
        with torch.autocast(slices.tokens.device.type, enabled=False):
            # the mean of cosines is the cosine's product with the mean direction
            direction = normalize(question.float(), dim=-1).mean(0)
            relevance = normalize(slices.tokens.float(), dim=-1) @ direction
        lowest = relevance.masked_fill(~slices.valid, torch.inf).amin(1, keepdim=True)
        span = relevance.masked_fill(~slices.valid, -torch.inf).amax(1, keepdim=True) - lowest
        scaled = (relevance - lowest + _LEAST_RELEVANCE) / span
        return scaled.clamp(max=1).where(span > _LEAST_RELEVANCE, 1.0)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the tokens that the greedy search takes."""
        valid = slices.valid
        counts = self.selected_counts(slices)
        steps = max(counts)
        similarity = cosine_similarity(slices)
        wanted = torch.tensor(counts, device=valid.device)
        rows = torch.arange(len(counts), device=valid.device)
        # the kernel's determinant is that of the similarity times the squared relevance, so the factors are kept apart
        relevance = in_steps(score.double()).square()
        chosen = torch.zeros_like(valid)
        left = similarity.diagonal(dim1=1, dim2=2).double()  # of each token, what those chosen do not span
        factor = left.new_zeros(len(counts), steps, valid.shape[1])  # rows of the Cholesky factor
        for step in range(steps):
            gain = (relevance * in_steps(left)).where(left > SIMILARITY_STEP, relevance - 2)
            best = gain.masked_fill(chosen | ~valid, -torch.inf).argmax(dim=1)
            chosen[rows, best] |= step < wanted  # a slice that has enough takes no more
            length = left[rows, best][:, None]
            of_best = factor[rows, :step, best]
            row = similarity[rows, best].double() - (of_best[:, None] @ factor[:, :step])[:, 0]
            row = (row / length.clamp(min=SIMILARITY_STEP).sqrt()).where(length > SIMILARITY_STEP, 0.0)
            factor[:, step] = row
            left -= row.square()
        return chosen
