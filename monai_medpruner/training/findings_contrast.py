# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Contrast of slices with phrases of captions: the encoder learns which phrases are true of a slice.

As in FLAIR (arXiv 2412.03561), a phrase is a part of a caption, and its text is the query that pools the tokens of the
slice; as in SigLIP (arXiv 2303.15343), each pair of slice and phrase is one yes-or-no decision. Beside it, each token
gives back the contrast of its own square, as in an autoencoder. No head reads a label off a token: what is learned of
findings comes from captions of whole slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from monai_medpruner.networks import Checkpoint
from monai_medpruner.training.findings_phrases import PHRASE_PARTS
from monai_medpruner.training.small_models import TOKEN_PIXELS
from monai_medpruner.training.vision_warm_up import encode_slices, is_language

__all__ = ["PhraseContrast", "PhraseLoss", "prepare_phrase_batch", "square_contrast"]

_WORDS = sum(len(words) for words in PHRASE_PARTS.values())
_BLOCK = 2  # side in pixels of the blocks of a square


def prepare_phrase_batch(
    batch: Mapping[str, torch.Tensor], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple[Mapping[str, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return the batch, and which phrases are true with the slices, for MONAI's trainer; tensors go to the device."""
    moved = {name: value.to(device, non_blocking=non_blocking) for name, value in batch.items()}
    return moved, (moved["true"], moved["image"])


class PhraseContrast(nn.Module):
    """A model's encoder and projector, a small text encoder, and attention from text to the tokens of a slice.

    Args:
        network: its model is trained in place, without the language model.
        heads: number of heads of the attention.
        seed: seed of the initial weights of what is discarded after training.
    """

    def __init__(self, network: Checkpoint, heads: int = 4, seed: int = 0) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that it is not a submodule: only the model is trained and saved
        self.model = network.model
        self.heads = heads
        width = self.model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.word_embedding = nn.Linear(_WORDS, width, bias=False)
            nn.init.normal_(self.word_embedding.weight, std=0.5)
            self.text = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            self.text_norm, self.token_norm, self.pooled_norm = (nn.LayerNorm(width) for _ in range(3))
            self.query, self.key, self.value, self.pooled, self.compared = (nn.Linear(width, width) for _ in range(5))
            self.match_head = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 1))
            self.square_head = nn.Linear(width, (TOKEN_PIXELS // _BLOCK) ** 2)
        self.to(self.model.device)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = not is_language(name)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-odds ``(S, Q)`` that each phrase is true of its slice, and the pixels read off the tokens.

        Args:
            batch: ``image``, uint8 ``(S, H, W)``, and ``terms``, ``(S, Q, words)``, of :class:`PhraseBatches`.

        Returns:
            as above; the second are the guessed :func:`square_contrast`, ``(S, N, B)``.
        """
        tokens = self.token_norm(torch.stack(encode_slices(self._network[0], batch["image"])).sum(0))
        words = self.word_embedding(batch["terms"])
        text = words + self.text(words)
        query, key, value = (
            rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for rows in (self.query(self.text_norm(text)), self.key(tokens), self.value(tokens))
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        pooled, compared = self.pooled_norm(self.pooled(attended)), self.compared(text)
        logits = self.match_head(torch.cat([pooled * compared, pooled, compared], -1))[..., 0]
        return logits, self.square_head(tokens)


class PhraseLoss(nn.Module):
    """Binary cross-entropy over the pairs of slice and phrase (arXiv 2303.15343, equation 1), and reconstruction.

    Each token has to give back the contrast of its own square, as in an autoencoder: what is small and faint would
    otherwise not be in the tokens when the text begins to ask for it.
    """

    def forward(
        self, predicted: tuple[torch.Tensor, torch.Tensor], label: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Return the loss.

        Args:
            predicted: log-odds ``(S, Q)`` and contrast ``(S, N, B)``.
            label: which phrases are true, ``(S, Q)``, and the slices, uint8 ``(S, H, W)``.
        """
        (logits, contrast), (true, image) = predicted, label
        return F.binary_cross_entropy_with_logits(logits, true) + F.mse_loss(contrast, square_contrast(image))


def square_contrast(image: torch.Tensor) -> torch.Tensor:
    """Return how far blocks of 2 by 2 pixels lie from the median of their token's square.

    Args:
        image: uint8 ``(S, H, W)``.

    Returns:
        ``(S, N, B)``, in units of a tenth of the window, clipped at 3, so that bone counts no more than a finding.
    """
    blocks = F.avg_pool2d(image[:, None].float() / 255, _BLOCK)
    side = TOKEN_PIXELS // _BLOCK
    squares = F.unfold(blocks, side, stride=side).transpose(1, 2)
    return (10 * (squares - squares.median(2, keepdim=True).values)).clamp(-3, 3)
