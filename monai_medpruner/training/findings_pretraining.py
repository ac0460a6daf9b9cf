# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pretraining of an encoder that is told nothing about findings: it guesses what masked squares look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from monai_medpruner.networks import Checkpoint
from monai_medpruner.training.findings_volumes import FindingsVolume
from monai_medpruner.training.small_models import TOKEN_PIXELS
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.training_phantom import BLOCK_PIXELS
from monai_medpruner.training.vision_warm_up import encode_slices, is_language

__all__ = [
    "MaskedReconstruction",
    "MaskedSliceBatches",
    "ReconstructionLoss",
    "square_contrast",
]

_EXTREME, _MAX_EXTREME = 0.05, 4.0  # unit in the window, and largest value, of the brightest and the darkest block
_WHOLE = 3  # numbers that describe a square as a whole
_MIN_DEVIATION = 0.02  # of block means scaled to [0, 1]; noise has about 0.01


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
        """Return ``image`` with noise, uint8 ``(S, H, W)``, and ``label``: ``original``; ``masked``, ``(S, N)``."""
        chosen = [self.volumes[int(index)] for index in generator.integers(len(self.volumes), size=self.batch_size)]
        original = np.stack([volume.slices[int(generator.integers(len(volume.slices)))] for volume in chosen])
        number = self.tokens_per_side**2
        order = generator.permuted(np.tile(np.arange(number), (self.batch_size, 1)), axis=1)
        masked = order < round(self.mask_share * number)
        pixels = original.shape[1] // self.tokens_per_side
        spread = masked.reshape(-1, self.tokens_per_side, self.tokens_per_side).repeat(pixels, 1).repeat(pixels, 2)
        noise = generator.integers(0, 256, original.shape, dtype=np.uint8)
        return {
            "image": torch.from_numpy(np.where(spread, noise, original)),
            "label": {"masked": torch.from_numpy(masked), "original": torch.from_numpy(original)},
        }


class MaskedReconstruction(nn.Module):
    """A model's encoder and projector with a linear head that describes the square of each token.

    Args:
        network: its model is trained in place.
        seed: seed of the initial weights of the head.
    """

    def __init__(self, network: Checkpoint, seed: int = 0) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that it is not a submodule: only the model is trained and saved
        self.model = network.model
        width = self.model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, (TOKEN_PIXELS // BLOCK_PIXELS) ** 2 + 3)
        self.to(self.model.device)
        trained = dict(self.trained_parameters())
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name in trained

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return names and parameters of encoder, projector and head, without the language model."""
        return [(name, parameter) for name, parameter in self.named_parameters() if not is_language(name)]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the guessed :func:`square_contrast` ``(S, N, B + 3)`` of slices, uint8 ``(S, H, W)``."""
        rows = encode_slices(self._network[0], image)
        return self.head(self.norm(torch.stack(rows).sum(0)))


def square_contrast(image: torch.Tensor) -> torch.Tensor:
    """Return what the square of each token looks like, from the image alone.

    A square is divided into blocks of 4 by 4 pixels, whose means are less noisy than pixels. As in masked autoencoders
    (He et al., 2022, arXiv 2111.06377, section 4.1), they are normalized within the square: otherwise the skull, with
    far more contrast than a finding, would be all that is learned. A smallest deviation keeps noise from being
    stretched. The brightest and the darkest block are named beside them, clipped for the same reason.

    Args:
        image: uint8 ``(S, H, W)``.

    Returns:
        ``(S, N, B + 3)``: the deviation of each of the B blocks from the square's mean in units of their standard
        deviation; the mean, scaled to [-2, 2]; how far the largest and the smallest block lie from the median, in units
        of 0.05 of the window and at most 4.
    """
    blocks = F.avg_pool2d(image[:, None].float() / 255, BLOCK_PIXELS)
    side = TOKEN_PIXELS // BLOCK_PIXELS
    squares = F.unfold(blocks, side, stride=side).transpose(1, 2)
    mean, median = squares.mean(2, keepdim=True), squares.median(2, keepdim=True).values
    deviation = squares.std(2, keepdim=True, correction=0).clamp(min=_MIN_DEVIATION)
    extremes = torch.cat([squares.amax(2, keepdim=True) - median, median - squares.amin(2, keepdim=True)], 2)
    return torch.cat([(squares - mean) / deviation, 4 * mean - 2, (extremes / _EXTREME).clamp(max=_MAX_EXTREME)], 2)


class ReconstructionLoss(nn.Module):
    """Mean squared error of masked squares, plus a share of that of visible ones.

    Visible squares count, because findings are small: most of them cannot be guessed from their surroundings, and a
    token that must give back its own square keeps them.

    Args:
        visible_weight: weight of the visible squares.
    """

    def __init__(self, visible_weight: float = 1.0) -> None:
        super().__init__()
        self.visible_weight = visible_weight

    def forward(self, predicted: torch.Tensor, label: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss.

        Args:
            predicted: ``(S, N, B + 3)``.
            label: ``original``, uint8 ``(S, H, W)``, and ``masked``, bool ``(S, N)``.
        """
        error = (predicted - square_contrast(label["original"])).square()
        # the blocks of a square count as much as what is said of it as a whole
        error = error[..., :-_WHOLE].mean(2) + error[..., -_WHOLE:].mean(2)
        masked = label["masked"]
        return error[masked].mean() + self.visible_weight * error[~masked].mean()
