# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""First training stage: the vision encoder and projector learn to classify slices and their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from monai_medpruner.data.phantom import ORGANS, PHASES, PLANES
from monai_medpruner.networks import Checkpoint, TransformersEncoder
from monai_medpruner.networks.packed_attention import packed_attention
from monai_medpruner.training.small_models import TOKEN_PIXELS
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.training_phantom import BLOCK_PIXELS, FINDINGS, IGNORED, NO_FINDING, TrainingPhantom

__all__ = ["VisionWarmUp", "WarmUpBatches", "WarmUpLoss", "prepare_labeled_batch"]

_BLOCKS = (TOKEN_PIXELS // BLOCK_PIXELS) ** 2
# (hypodense, hyperdense) for each finding, and for no finding
_DENSITIES = torch.tensor(
    [(density == "hypodense", density == "hyperdense") for _, _, density in FINDINGS] + [(False, False)]
)
# scale the means over blocks to the size of the other terms: few blocks are on a border, one in hundreds in a lesion
_ORGAN_WEIGHT, _LESION_WEIGHT = 6.0, 100.0
_FILLED_WEIGHT = 5.0


class WarmUpBatches(StepBatches):
    """Single slices of many phantoms.

    Args:
        phantoms: phantoms to sample from.
        batch_size: number of slices per batch.
        lesion_fraction: fraction of slices with a lesion, balanced over the findings; the others are sampled from all
            slices.
        initial_min_diameter: min lesion diameter in mm in the first epoch; it decreases linearly to 0, because small
            lesions are only learned after large ones.
        curriculum_epochs: number of epochs over which the min diameter decreases to 0.
        background_weight: initial and final weight of tokens without a lesion, which are almost all tokens. With a
            small weight the model learns to detect lesions; a large weight then removes false positives.
        weight_epochs: last epoch with the initial weight, and first epoch with the final weight; in between, the weight
            grows exponentially.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        phantoms: Sequence[TrainingPhantom],
        batch_size: int,
        lesion_fraction: float,
        initial_min_diameter: float,
        curriculum_epochs: int,
        background_weight: tuple[float, float],
        weight_epochs: tuple[int, int],
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.phantoms = phantoms
        self.batch_size = batch_size
        self.lesion_fraction = lesion_fraction
        self.initial_min_diameter = initial_min_diameter
        self.curriculum_epochs = curriculum_epochs
        self.background_weight = background_weight
        self.weight_epochs = weight_epochs
        self.whole = [number for number, phantom in enumerate(phantoms) if phantom.answers]
        self.finding_slices: list[list[tuple[int, int]]] = [[] for _ in FINDINGS]
        for number, phantom in enumerate(phantoms):
            for index, finding in enumerate(phantom.slice_findings.tolist()):
                if finding != NO_FINDING:
                    self.finding_slices[finding].append((number, index))

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return ``image``, uint8 ``(S, H, W)``, and ``label``, see :class:`WarmUpLoss`."""
        min_diameter = self.initial_min_diameter * max(1 - (self.epoch - 1) / self.curriculum_epochs, 0)
        large = [
            [one for one in slices if self.phantoms[one[0]].diameter_mm >= min_diameter]
            for slices in self.finding_slices
        ]
        chosen = []
        for _ in range(self.batch_size):
            if generator.uniform() < self.lesion_fraction:
                slices = large[generator.integers(len(FINDINGS))]
                chosen.append(slices[generator.integers(len(slices))])
            else:
                number = self.whole[generator.integers(len(self.whole))]
                chosen.append((number, int(generator.integers(len(self.phantoms[number].slices)))))
        members = [(self.phantoms[number], index) for number, index in chosen]
        label = {
            **{
                name: np.stack([getattr(phantom, name)[index] for phantom, index in members])
                for name in ("findings", "organ_blocks", "lesion_blocks")
            },
            "finding": np.array([phantom.slice_findings[index] for phantom, index in members]),
            "plane": np.array([phantom.plane for phantom, _ in members]),
            "phase": np.array([phantom.phase for phantom, _ in members]),
            "background_weight": np.array(self._background_weight(), dtype=np.float32),
        }
        return {
            "image": torch.from_numpy(np.stack([phantom.slices[index] for phantom, index in members])),
            "label": {name: torch.from_numpy(value) for name, value in label.items()},
        }

    def _background_weight(self) -> float:
        (first, last), (start, end) = self.background_weight, self.weight_epochs
        grown = min(max((self.epoch - start) / (end - start), 0), 1)
        return first * (last / first) ** grown


def prepare_labeled_batch(
    batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return inputs and labels of a batch for MONAI's trainer, with the labels on the device."""
    label = {name: value.to(device, non_blocking=non_blocking) for name, value in batch["label"].items()}
    return batch["image"], label


class VisionWarmUp(nn.Module):
    """A model's vision encoder and projector with linear heads that are discarded after training.

    Args:
        network: its model is trained in place.
        seed: seed of the initial weights of the heads.
    """

    def __init__(self, network: Checkpoint, seed: int = 0) -> None:
        super().__init__()
        # in a list, so that it is not a submodule: only the model is trained and saved
        self._network = [network]
        self.model = network.model
        width = self.model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.token_norm, self.slice_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            sizes = {"findings": NO_FINDING + 1, "presence": 1}
            sizes |= {"organ_blocks": _BLOCKS * (len(ORGANS) + 1), "lesion_blocks": _BLOCKS * 2}
            self.token_heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
            sizes = {"finding": NO_FINDING + 1, "plane": len(PLANES), "phase": len(PHASES)}
            self.slice_heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.to(self.model.device)

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return names and parameters of encoder, projector and heads, without the language model."""
        return [(name, parameter) for name, parameter in self.named_parameters() if not is_language(name)]

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classify slices and their tokens.

        Args:
            image: uint8 ``(S, H, W)``.

        Returns:
            Logits in float32. For tokens: ``findings`` ``(S, N, 11)``, ``presence`` ``(S, N, 1)``, ``organ_blocks``
            ``(S, N, B * 15)`` and ``lesion_blocks`` ``(S, N, B * 2)``, hypodense and hyperdense. For slices, from
            the mean of their tokens: ``finding`` ``(S, 11)``, ``plane`` and ``phase`` ``(S, 3)``.
        """
        # faster on a CPU (benchmarks/training_steps.py): bfloat16 matrix products, and unfused attention, because the
        # backward pass of fused attention is slow in bfloat16
        with torch.autocast(self.model.device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            tokens = torch.stack(self.encode(image)).sum(0)
            own, pooled = self.token_norm(tokens), self.slice_norm(tokens.mean(1))
            logits = {name: head(own) for name, head in self.token_heads.items()}
            logits |= {name: head(pooled) for name, head in self.slice_heads.items()}
        return {name: value.float() for name, value in logits.items()}

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return tokens ``(S, N, C)`` and the features of each DeepStack layer; see :func:`encode_slices`."""
        return encode_slices(self._network[0], image)

    def lesion_logits(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """Return the log-odds ``(S, N)`` that a token shows a lesion.

        Args:
            rows: result of :meth:`encode`.
        """
        findings = self.token_heads["findings"](self.token_norm(torch.stack(rows).sum(0)))
        return findings[..., :NO_FINDING].logsumexp(-1) - findings[..., NO_FINDING]


def is_language(name: str) -> bool:
    """Whether a parameter with this name belongs to the language model."""
    return "language_model" in name or "lm_head" in name


def encode_slices(network: Checkpoint, image: torch.Tensor) -> list[torch.Tensor]:
    """Encode slices of the same size to projected tokens and DeepStack features, using the image processor.

    Args:
        network: provides the model and the image processor.
        image: uint8 ``(S, H, W)``.

    Returns:
        Tokens ``(S, N, C)``, then the features of each DeepStack layer, with the same shape.
    """
    volume = image.permute(1, 2, 0)[None].float() / 255
    family = network.family
    inputs = TransformersEncoder(network).image_inputs(volume)
    inputs = {name: value for name, value in inputs.items() if name in family.image_inputs}
    with packed_attention(family.vision_configs):
        encoded = family.encode(inputs)
    return [torch.stack(rows) for rows in (encoded.tokens, *encoded.deepstack_features)]


class WarmUpLoss(nn.Module):
    """Sum of the cross-entropies of all heads.

    Each token predicts the content of its own square: the finding and, per block, the organ and the fraction covered by
    a hypodense or hyperdense lesion. The encoder learns fastest from the blocks. Each token also predicts whether its
    slice has a lesion anywhere. This makes tokens attend to the lesion, as in encoders trained on whole images. The
    mean of the tokens of a slice predicts its finding, plane and phase.

    Args:
        presence_weight: weight of the prediction whether the slice has a lesion anywhere.
    """

    def __init__(self, presence_weight: float = 1.0) -> None:
        super().__init__()
        self.presence_weight = presence_weight

    def forward(self, logits: Mapping[str, torch.Tensor], label: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the logits of :class:`VisionWarmUp` for the labels of a batch.

        Args:
            logits: result of :meth:`VisionWarmUp.forward`.
            label: class numbers ``findings`` ``(S, N)``, ``organ_blocks`` ``(S, N, B)``, ``finding``, ``plane`` and
                ``phase`` ``(S,)``; ``lesion_blocks`` ``(S, N, B)``, numbers of lesion pixels; ``background_weight``
                ``()``, the weight of tokens without a lesion.
        """
        weights = torch.ones(NO_FINDING + 1, device=logits["findings"].device)
        weights[NO_FINDING] = label["background_weight"]
        found = F.cross_entropy(
            logits["findings"].flatten(0, 1), label["findings"].flatten(), weight=weights, ignore_index=IGNORED
        )
        organs = F.cross_entropy(
            logits["organ_blocks"].unflatten(-1, (_BLOCKS, -1)).flatten(0, 2), label["organ_blocks"].flatten().long()
        )
        shown = (label["finding"] != NO_FINDING).float()[:, None, None].expand_as(logits["presence"])
        presence = F.binary_cross_entropy_with_logits(logits["presence"], shown)
        slices = sum(F.cross_entropy(logits[name], label[name]) for name in ("finding", "plane", "phase"))
        weighted = _ORGAN_WEIGHT * organs + _LESION_WEIGHT * self._lesion_blocks(logits, label)
        return found + weighted + self.presence_weight * presence + slices

    def _lesion_blocks(self, logits: Mapping[str, torch.Tensor], label: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Loss of the fraction of each block covered by a hypodense and by a hyperdense lesion."""
        share = label["lesion_blocks"].float()[..., None] / BLOCK_PIXELS**2
        density = _DENSITIES.to(share.device)[label["finding"]]
        return F.binary_cross_entropy_with_logits(
            logits["lesion_blocks"].unflatten(-1, (_BLOCKS, 2)),
            share * density[:, None, None],
            pos_weight=torch.full((2,), _FILLED_WEIGHT, device=share.device),
        )
