# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pretraining of an encoder that is told nothing about findings: it gives back the pixels of masked squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from monai_medpruner.networks import Checkpoint
from monai_medpruner.training.findings_pool import FindingsVolume
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.vision_warm_up import encode_slices, is_language

__all__ = [
    "MaskedReconstruction",
    "MaskedSliceBatches",
    "ReconstructionLoss",
    "prepare_masked_batch",
]


class MaskedSliceBatches(StepBatches):
    """Slices with random squares replaced by noise.

    Args:
        volumes: volumes to sample from.
        batch_size: number of slices per batch.
        tokens_per_side: number of squares along a side of a slice, each the square of one token.
        mask_share: share of the squares that are replaced.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        volumes: Sequence[FindingsVolume],
        batch_size: int,
        tokens_per_side: int,
        mask_share: float,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.volumes, self.batch_size = volumes, batch_size
        self.tokens_per_side, self.mask_share = tokens_per_side, mask_share

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return ``image`` with noise, uint8 ``(S, H, W)``, ``masked``, bool ``(S, N)``, and ``original``."""
        chosen = [self.volumes[int(index)] for index in generator.integers(len(self.volumes), size=self.batch_size)]
        original = np.stack([volume.slices[int(generator.integers(len(volume.slices)))] for volume in chosen])
        number = self.tokens_per_side**2
        order = generator.permuted(np.tile(np.arange(number), (self.batch_size, 1)), axis=1)
        masked = order < round(self.mask_share * number)
        pixels = original.shape[1] // self.tokens_per_side
        spread = masked.reshape(-1, self.tokens_per_side, self.tokens_per_side).repeat(pixels, 1).repeat(pixels, 2)
        noise = generator.integers(0, 256, original.shape, dtype=np.uint8)
        parts = {"image": np.where(spread, noise, original), "masked": masked, "original": original}
        return {name: torch.from_numpy(value) for name, value in parts.items()}


def prepare_masked_batch(
    batch: Mapping[str, torch.Tensor],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_: Any,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the slices with noise, and what they are compared with, for MONAI's trainer."""
    label = {name: batch[name].to(device, non_blocking=non_blocking) for name in ("original", "masked")}
    return batch["image"], label


class MaskedReconstruction(nn.Module):
    """A model's encoder and projector with a linear head that gives the pixels of each token's square.

    Args:
        network: its model is trained in place.
        token_pixels: side length of a token's square in pixels.
        seed: seed of the initial weights of the head.
    """

    def __init__(self, network: Checkpoint, token_pixels: int, seed: int = 0) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that it is not a submodule: only the model is trained and saved
        self.model = network.model
        width = self.model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, token_pixels**2)
        self.to(self.model.device)

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return names and parameters of encoder, projector and head, without the language model."""
        return [(name, parameter) for name, parameter in self.named_parameters() if not is_language(name)]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the pixels of each token's square ``(S, N, P * P)``, scaled to [0, 1], for uint8 ``(S, H, W)``."""
        rows = encode_slices(self._network[0], image)
        return self.head(self.norm(torch.stack(rows).sum(0)))


class ReconstructionLoss(nn.Module):
    """Mean absolute error of pixels: of masked squares, plus a share of that of visible ones.

    Visible squares count, because findings are small: most of them cannot be guessed from their surroundings, and a
    token that must give back its own square keeps them.

    Args:
        visible_weight: weight of the visible squares.
    """

    def __init__(self, visible_weight: float = 0.5) -> None:
        super().__init__()
        self.visible_weight = visible_weight

    def forward(self, predicted: torch.Tensor, label: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss.

        Args:
            predicted: ``(S, N, P * P)``.
            label: ``original``, uint8 ``(S, H, W)``, and ``masked``, bool ``(S, N)``.
        """
        side = round(predicted.shape[2] ** 0.5)
        squares = F.unfold(label["original"][:, None].float() / 255, side, stride=side).transpose(1, 2)
        error = (predicted - squares).abs().mean(2)
        masked = label["masked"]
        return error[masked].mean() + self.visible_weight * error[~masked].mean()
