# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Captions of slices, learned end to end: the language model reads all tokens of a slice and writes what it shows.

No head reads a label off a token: whatever the encoder learns of findings, it learns from the words of the captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.results import SliceRecord
from monai_medpruner.training.answer_training import AnswerNetwork
from monai_medpruner.training.findings_answers import prompt_text
from monai_medpruner.training.findings_volumes import NO_FINDING_CAPTION, SLICE_QUESTION, FindingsVolume
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.vision_warm_up import encode_slices

__all__ = ["CaptionBatches", "CaptionNetwork"]


class CaptionBatches(StepBatches):
    """Single slices with all their tokens, and their captions.

    Args:
        network: builds the prompts.
        volumes: volumes to sample from.
        batch_size: number of slices per batch.
        finding_share: share of the slices that show a finding.
        large_epochs: number of first epochs in which only slices with large findings are shown: first the tenth of the
            slices with the largest ones, then more and more, at last all.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        network: Checkpoint,
        volumes: Sequence[FindingsVolume],
        batch_size: int,
        finding_share: float,
        large_epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.network, self.volumes, self.batch_size = network, volumes, batch_size
        self.finding_share, self.large_epochs = finding_share, large_epochs
        sized: list[tuple[float, int, int]] = []  # area of the smallest finding, volume, slice
        self.without: list[tuple[int, int]] = []
        for number, volume in enumerate(volumes):
            for index, caption in enumerate(volume.captions):
                if caption == NO_FINDING_CAPTION:
                    self.without.append((number, index))
                else:
                    areas = volume.areas[index].sum(1)
                    sized.append((float(areas[areas > 0].min()), number, index))
        self.with_finding = sorted(sized, reverse=True)

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return ``image``, uint8 ``(S, H, W)``, the ``texts`` of the prompts and the captions as ``answers``."""
        part = min(0.1 + 0.9 * (self.epoch - 1) / self.large_epochs, 1) if self.large_epochs else 1
        count = max(round(part * len(self.with_finding)), 1)
        chosen = []
        for _ in range(self.batch_size):
            if generator.uniform() < self.finding_share:
                chosen.append(self.with_finding[int(generator.integers(count))][1:])
            else:
                chosen.append(self.without[int(generator.integers(len(self.without)))])
        return self.batch(chosen)

    def batch(self, chosen: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Return a batch of given slices, each as numbers of volume and slice."""
        grid = (round(self.volumes[0].areas.shape[2] ** 0.5),) * 2
        text = prompt_text(self.network, SLICE_QUESTION, grid, [0])
        return {
            "image": torch.from_numpy(np.stack([self.volumes[number].slices[index] for number, index in chosen])),
            "grid": grid,
            "texts": [text] * len(chosen),
            "answers": [self.volumes[number].captions[index] for number, index in chosen],
            "questions": 1,
        }


class CaptionNetwork(nn.Module):
    """A model that learns captions end to end: encoder, projector and language model.

    Args:
        network: its model is trained in place.
    """

    def __init__(self, network: Checkpoint) -> None:
        super().__init__()
        self._answering = [AnswerNetwork(network)]  # in a list: its model is this one's
        self.model = network.model
        for parameter in self.model.parameters():
            parameter.requires_grad = True

    def forward(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the tokens of the captions; see :class:`~.answer_training.AnswerNetwork`.

        Args:
            batch: a batch of :class:`CaptionBatches`.
        """
        (answering,) = self._answering
        rows = encode_slices(answering.network, batch["image"])
        records = [SliceRecord.unpruned(batch["grid"])] * len(rows[0])
        encoded = PrunedSlices(list(rows[0]), [list(layer) for layer in rows[1:]], records)
        return answering({**batch, "encoded": encoded})
