# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a pruner may ask for besides the tokens themselves; a pruner lists what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from monai_medpruner.errors import SettingsError

__all__ = [
    "AnchorSlices",
    "BlockSignal",
    "ClassAttention",
    "HiddenStates",
    "Keys",
    "LocalContrast",
    "QuestionEmbedding",
    "ReceivedAttention",
    "Signal",
    "SlicePositions",
]


@dataclass(frozen=True)
class Signal:
    """Base class of all signals. Two signals with equal fields are the same signal."""


@dataclass(frozen=True)
class BlockSignal(Signal):
    """A signal that is read off the attention of one block of the vision encoder.

    Args:
        block: index of the block, counted from 0; negative ones count from the last. A number above 0 and below 1 is
            a share of the encoder's depth: 0.5 is layer 16 of 32, the block with the index 15, or the nearest one that
            attends to the whole slice. None is the family's scoring layer, the last block that does.

    Raises:
        SettingsError: the block is neither a whole number nor a share between 0 and 1.
    """

    block: int | float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.block, float) and not 0 < self.block < 1:
            raise SettingsError(
                "a block must be a whole number, or a share of the encoder's depth above 0 and below 1, got "
                f"{self.block}"
            )


@dataclass(frozen=True)
class ReceivedAttention(BlockSignal):
    """Attention that each token receives from its slice, relative to uniform (MedPruner, eq. 3, times M).

    float32 ``(S, M)``, averaged over heads and over a token's patches; mean 1 over a slice. See
    :func:`monai_medpruner.pruners.attention_received`. Class tokens take no part.
    """


@dataclass(frozen=True)
class ClassAttention(BlockSignal):
    """Attention that the class token pays to each token, relative to uniform.

    float32 ``(S, M)``: the class token's row of the softmax over class token and patches, times the number of patches,
    averaged over heads and over a token's patches. See :func:`monai_medpruner.pruners.class_attention`. Only families
    whose encoder has a class token have this signal.
    """


@dataclass(frozen=True)
class HiddenStates(BlockSignal):
    """Input of the block's attention, float32 ``(S, M, E)``, averaged over a token's patches."""


@dataclass(frozen=True)
class Keys(BlockSignal):
    """Keys of the block's attention, float32 ``(S, M, d)``, averaged over heads and over a token's patches.

    They are taken after rotary embedding where there is one.
    """


@dataclass(frozen=True)
class SlicePositions(Signal):
    """Position of each slice along the slice axis in mm, float32 ``(S,)``."""


@dataclass(frozen=True)
class AnchorSlices(Signal):
    """Which slices the anchor rule keeps (MedPruner, eq. 2) on the pixels that the encoder gets, bool ``(S,)``.

    The first slice is True. A later one is True, and becomes the anchor, where its mean absolute difference to the
    anchor is greater than the threshold, or where it has another size. All slices of a call are one volume.

    Args:
        threshold: γ, finite and at least 0, in the units of the image processor's output: about [-1, 1].

    Raises:
        SettingsError: the threshold is not as described.
    """

    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not (isfinite(self.threshold) and self.threshold >= 0):
            raise SettingsError(f"the threshold must be finite and at least 0, got {self.threshold}")


@dataclass(frozen=True)
class LocalContrast(Signal):
    """How much the most conspicuous small structure in each token's square differs from its surroundings.

    float32 ``(S, M)``, in [0, 1], a share of the range of the volume's pixels; the largest value of the pixels of the
    square and of their channels. Of a pixel: the largest absolute difference between its means by two Gaussians, one
    four times as wide as the other, over three widths: standard deviations of 3/32, 5/32 and 1/4 of a token's side.

    Pixels in the lowest or highest 5 % of the range are clipped by the window, as air and bone are. They, but not
    specks of them, are left out of the means, and the contrast of pixels up to a quarter of a token's side from them
    is 0: their edges would hide all else. The value is the average of two, with pixels of that margin in the means and
    without.

    It is computed on the pixels that the encoder gets; no token, attention or question takes part. All slices of a
    call are one volume.
    """


@dataclass(frozen=True)
class QuestionEmbedding(Signal):
    """Input embeddings that the language model has for the question's T tokens, ``(T, C)``.

    A pruner that asks for it is run once per question, after the slices are encoded.
    """
