# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training phantoms: preprocessed slices with ground truth for every slice and token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch.nn.functional import avg_pool2d

from monai_medpruner.data.phantom import (
    LESION_ORGANS,
    ORGANS,
    PHASES,
    PLANES,
    Lesion,
    Phantom,
    PhantomSettings,
    phantom_answers,
)
from monai_medpruner.data.volume_reader import Volume, VolumeReader

__all__ = [
    "BLOCK_PIXELS",
    "FINDINGS",
    "IGNORED",
    "NO_FINDING",
    "Preprocessing",
    "TrainingPhantom",
    "add_lesion",
    "load_phantom",
    "training_phantom",
]

#: possible lesions as (organ, side, density); their indices are the classes of the vision warm-up
FINDINGS = tuple(
    (organ, side, density)
    for organ in LESION_ORGANS
    for side in {"liver": ("right",), "spleen": ("left",)}.get(organ, ("right", "left"))
    for density in (("hyperdense",) if organ == "lung" else ("hypodense", "hyperdense"))
)
#: class of tokens and slices without a lesion
NO_FINDING = len(FINDINGS)
#: label of tokens that show too little of a lesion to be classified
IGNORED = -100
#: side length in pixels of the blocks into which the square of a token is divided
BLOCK_PIXELS = 4
_MIN_LESION_PIXELS = 3
_MAX_TRIES = 200
_MARGIN = 1  # additional slices on each side of an added lesion

#: a transform on dictionaries
Preprocessing = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class TrainingPhantom:
    """A phantom as 8-bit slices, with its ground truth.

    Args:
        slices: uint8 ``(D, H, W)``, the input of the image processor.
        organ_blocks: uint8 ``(D, N, B)``, the most frequent organ in each block of a token's square, 0 for none.
        lesion_blocks: uint8 ``(D, N, B)``, number of lesion pixels in each block.
        findings: int64 ``(D, N)``, index in :data:`FINDINGS`, :data:`NO_FINDING` or :data:`IGNORED`.
        plane: index in ``PLANES``.
        phase: index in ``PHASES``.
        diameter_mm: diameter of the lesion in mm, 0 if there is none.
        answers: correct answers by question type, see :func:`~monai_medpruner.data.phantom.phantom_answers`.
    """

    slices: np.ndarray
    organ_blocks: np.ndarray
    lesion_blocks: np.ndarray
    findings: np.ndarray
    plane: int
    phase: int
    diameter_mm: float
    answers: dict[str, str]

    @property
    def slice_findings(self) -> np.ndarray:
        """Finding of each slice, int64 ``(D,)``."""
        return np.where((self.findings < NO_FINDING), self.findings, -1).max(1) % (NO_FINDING + 1)


def load_phantom(phantom: Phantom, voxels: np.ndarray | None = None) -> MetaTensor:
    """Return a phantom in the form in which :class:`~monai_medpruner.transforms.LoadVolume` reads its file.

    Args:
        phantom: the phantom.
        voxels: one of its masks, or None for its volume.
    """
    stored = phantom.volume if voxels is None else voxels
    volume = Volume(stored.astype(np.float32), phantom.affine, {"nonuniform": False, "notes": []})
    array, meta = VolumeReader().get_data(volume)
    return MetaTensor(torch.from_numpy(array)[None], meta=meta)


def training_phantom(phantom: Phantom, preprocessing: Preprocessing, token_pixels: int) -> TrainingPhantom:
    """Apply the preprocessing of the bundle to a phantom and its masks.

    Args:
        phantom: a phantom with one lesion or none.
        preprocessing: dictionary transform that scales ``image`` to [0, 1] and applies the same orientation to
            ``organs`` and ``lesion``.
        token_pixels: side length in pixels of the square covered by one visual token.
    """
    masks = {"organs": load_phantom(phantom, phantom.organs), "lesion": load_phantom(phantom, phantom.lesion_mask)}
    data = preprocessing({"image": load_phantom(phantom), **masks})
    # the rounding of networks.slice_images
    slices = (data["image"].as_tensor()[0] * 255).round().to(torch.uint8).permute(2, 0, 1)
    labels = data["organs"].as_tensor()[0].permute(2, 0, 1)
    filled = torch.stack([_block_fractions(labels == label, token_pixels) for label in (0, *ORGANS.values())], -1)
    lesion_blocks = _block_fractions(data["lesion"].as_tensor()[0].permute(2, 0, 1) > 0, token_pixels) * BLOCK_PIXELS**2
    pixels = lesion_blocks.sum(-1)
    findings = torch.full(pixels.shape, NO_FINDING)
    for lesion in phantom.lesions:
        clear = pixels.round() >= torch.clamp(pixels.amax(1, keepdim=True).round(), 1, _MIN_LESION_PIXELS)
        findings[pixels > 0] = IGNORED
        findings[clear] = FINDINGS.index((lesion.organ, lesion.side, lesion.density))
    return TrainingPhantom(
        slices=slices.numpy(),
        organ_blocks=filled.argmax(-1).to(torch.uint8).numpy(),
        lesion_blocks=lesion_blocks.round().to(torch.uint8).numpy(),
        findings=findings.numpy(),
        plane=PLANES.index(phantom.plane),
        phase=PHASES.index(phantom.phase),
        diameter_mm=max((lesion.diameter_mm for lesion in phantom.lesions), default=0.0),
        answers=phantom_answers(phantom),
    )


def add_lesion(
    phantom: Phantom, finding: tuple[str, str, str], settings: PhantomSettings, generator: np.random.Generator
) -> Phantom | None:
    """Add a lesion to a phantom and return the slices around it, which is cheaper than generating a new phantom.

    Args:
        phantom: a phantom with one lesion or none.
        finding: organ, side and density, one of :data:`FINDINGS`.
        settings: ranges of diameter and contrast.
        generator: random generator of position, size and contrast.

    Returns:
        A phantom of these slices with only the new lesion; None if no position apart from its own lesion was found.
    """
    organ, side, density = finding
    name = f"{side} {organ}" if organ in ("kidney", "lung") else organ
    diameter = float(generator.uniform(*settings.lesion_diameter_mm))
    contrast = float(generator.uniform(*settings.lesion_contrast_hu)) * (1 if density == "hyperdense" else -1)
    if organ == "lung":
        contrast = float(generator.uniform(20, 60)) - phantom.organ_hu[name]
    inside = np.flatnonzero(phantom.organs == ORGANS[name])
    spacing, shape = np.array(phantom.spacing), np.array(phantom.volume.shape)
    for _ in range(_MAX_TRIES if len(inside) else 0):
        center = np.array(np.unravel_index(inside[generator.integers(len(inside))], shape))
        reach = np.ceil(diameter / 2 / spacing).astype(int)
        low, high = center - reach, center + reach + 1
        if (low < 0).any() or (high > shape).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        offsets = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
        ball = sum((o * s) ** 2 for o, s in zip(offsets, spacing, strict=True)) <= (diameter / 2) ** 2
        if (phantom.organs[box][ball] != ORGANS[name]).any():
            continue
        first, last = max(low[2] - _MARGIN, 0), min(high[2] + _MARGIN, shape[2])
        if phantom.lesion_mask[:, :, first:last].any():
            continue
        volume, mask = phantom.volume.copy(), np.zeros_like(phantom.lesion_mask)
        volume[box][ball] += round(contrast)
        mask[box][ball] = 1
        affine = phantom.affine.copy()
        affine[:3, 3] += affine[:3, 2] * first
        place = (phantom.affine @ [*center, 1])[:3]
        ball_lesion = Lesion(organ, side, diameter, (place[0], place[1], place[2]), contrast)
        parts = (volume, phantom.organs, mask)
        cut, organs, lesion = (np.ascontiguousarray(part[:, :, first:last]) for part in parts)
        return replace(phantom, affine=affine, lesions=[ball_lesion], volume=cut, organs=organs, lesion_mask=lesion)
    return None


def _block_fractions(mask: torch.Tensor, token_pixels: int) -> torch.Tensor:
    """Return the fraction of each block covered by a mask ``(D, H, W)``: ``(D, N, B)``, in row-major order."""
    blocks = avg_pool2d(mask.float()[:, None], BLOCK_PIXELS)[:, 0]
    side = token_pixels // BLOCK_PIXELS
    return blocks.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3).flatten(1, 2)
