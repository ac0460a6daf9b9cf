# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training volumes of phantoms with findings: slices, captions, answers, and where the findings lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from tqdm import tqdm

from monai_medpruner.data.phantom import (
    FINDINGS_QUESTIONS,
    HEAD_LABELS,
    FindingsPhantom,
    FindingsSettings,
    findings_answers,
    findings_report,
    generate_findings,
    phantom_seed,
)
from monai_medpruner.data.volume_reader import Volume, VolumeReader
from monai_medpruner.metrics import find_protocol
from monai_medpruner.training.small_models import IMAGE_SIZE, SmallShape
from monai_medpruner.transforms import FindBodyd, IntensityWindowsd, SlicePlaned

__all__ = [
    "BRAIN_WINDOW_HU",
    "FINDINGS_SHAPE",
    "NO_FINDING_CAPTION",
    "REPORT_QUESTION",
    "SLICE_QUESTION",
    "FindingsVolume",
    "findings_image",
    "findings_pool",
    "findings_volume",
]

#: HU that are scaled to 0 and 1
BRAIN_WINDOW_HU = (-20.0, 100.0)
SLICE_QUESTION = "Describe this slice."
REPORT_QUESTION = "Describe the findings."
NO_FINDING_CAPTION = "no finding"
_VOLUMES_PER_FILE = 40
_MIN_PIXELS = 2  # of a finding in a slice, for the slice's caption to name it


@dataclass
class FindingsVolume:
    """A phantom as 8-bit slices of the encoder's size, with texts about it.

    Args:
        slices: uint8 ``(D, 96, 96)``, the input of the image processor, from the lowest to the highest.
        areas: float32 ``(D, F, N)``, share of each token's square that each finding covers; it chooses tokens, and
            never is a label.
        captions: what each slice shows.
        report: what the volume shows.
        answers: correct answers by kind of question.
    """

    slices: np.ndarray
    areas: np.ndarray
    captions: list[str]
    report: str
    answers: dict[str, str]

    @property
    def shown(self) -> np.ndarray:
        """Whether each token shows a finding, bool ``(D, N)``."""
        return np.asarray((self.areas > 0).any(1))


def findings_volume(phantom: FindingsPhantom, tokens_per_side: int) -> FindingsVolume:
    """Bring a phantom into the form in which it is learned from.

    Args:
        phantom: the phantom.
        tokens_per_side: number of rows and of columns of a slice's tokens.
    """
    parts = {"image": phantom.volume, "organs": phantom.organs, "lesion": phantom.lesion_mask}
    data: dict[Any, Any] = {name: _loaded(phantom, voxels) for name, voxels in parts.items()}
    data = SlicePlaned(["image", "organs", "lesion"])(data)
    data = IntensityWindowsd("image", windows=[list(BRAIN_WINDOW_HU)])(data)
    scaled, organs, lesion = (data[name].as_tensor()[0].permute(2, 0, 1) for name in ("image", "organs", "lesion"))
    rounded = (scaled * 255).round()[:, None]  # the rounding of networks.slice_images, then the processor's resizing
    resized = interpolate(rounded, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
    masks = torch.stack([lesion == finding.label for finding in phantom.findings], 1)
    areas = adaptive_avg_pool2d(masks.float(), tokens_per_side).flatten(2)
    skull = organs == HEAD_LABELS["skull"]
    return FindingsVolume(
        slices=resized[:, 0].round().clamp(0, 255).to(torch.uint8).numpy(),
        areas=areas.numpy(),
        captions=[_caption(phantom, *one, tokens_per_side) for one in zip(masks.numpy(), skull.numpy(), strict=True)],
        report=findings_report(phantom)["findings"],
        answers=findings_answers(phantom),
    )


def findings_image(phantom: FindingsPhantom, body: bool = False) -> MetaTensor:
    """Return the slices of a phantom as the package's transforms prepare them, (1, H, W, D) in [0, 1].

    Args:
        phantom: the phantom.
        body: also record which part of each slice shows the body.
    """
    data: dict[Any, Any] = {"image": _loaded(phantom, phantom.volume)}
    data = SlicePlaned("image")(data)
    data = FindBodyd("image", crop="body_patches" if body else None, assume_hu=True)(data)
    image: MetaTensor = IntensityWindowsd("image", windows=[list(BRAIN_WINDOW_HU)])(data)["image"]
    return image


def findings_pool(
    folder: str | Path, seed: int, count: int, settings: FindingsSettings, tokens_per_side: int
) -> list[FindingsVolume]:
    """Return volumes of consecutive seeds; they are generated once and read from a folder from then on.

    Args:
        folder: folder of the files, which are reused if the arguments are the same.
        seed: seed of the phantoms; a benchmark with another seed contains none of them.
        count: number of volumes, rounded up to a multiple of 40.
        settings: ranges to sample from.
        tokens_per_side: see :func:`findings_volume`.
    """
    described = sha256(repr((asdict(settings), tokens_per_side, BRAIN_WINDOW_HU)).encode()).hexdigest()[:12]
    place = Path(folder) / f"findings_{seed}_{described}"
    place.mkdir(parents=True, exist_ok=True)
    volumes = []
    for block in tqdm(range(-(-count // _VOLUMES_PER_FILE)), desc=f"files of {_VOLUMES_PER_FILE} volumes"):
        file = place / f"block_{block:04d}.pt"
        if not file.is_file():
            first = phantom_seed(seed, block * _VOLUMES_PER_FILE)
            made = [
                findings_volume(generate_findings(number, settings), tokens_per_side)
                for number in range(first, first + _VOLUMES_PER_FILE)
            ]
            part = file.with_suffix(f".{os.getpid()}")
            torch.save([_as_tensors(volume) for volume in made], part)
            part.replace(file)
        # weights_only runs nothing
        volumes += [
            FindingsVolume(**{**fields, "slices": fields["slices"].numpy(), "areas": fields["areas"].numpy()})
            for fields in torch.load(file, weights_only=True)
        ]
    return volumes


def _as_tensors(volume: FindingsVolume) -> dict[str, Any]:
    return {**vars(volume), "slices": torch.from_numpy(volume.slices), "areas": torch.from_numpy(volume.areas)}


def _loaded(phantom: FindingsPhantom, voxels: np.ndarray) -> MetaTensor:
    volume = Volume(voxels.astype(np.float32), phantom.affine, {"nonuniform": False, "notes": []})
    array, meta = VolumeReader().get_data(volume)
    return MetaTensor(torch.from_numpy(array)[None], meta=meta)


def _caption(phantom: FindingsPhantom, masks: np.ndarray, skull: np.ndarray, side: int) -> str:
    """Describe the findings of a slice, row by row: density, diameter in the slice, quadrant, place, contact."""
    phrases = []
    for finding, mask in zip(phantom.findings, masks, strict=True):
        if mask.sum() < _MIN_PIXELS:
            continue
        row, column = (np.argwhere(mask).mean(0) * side / np.array(mask.shape)).astype(int).tolist()
        diameter = 2 * np.sqrt(mask.sum() / np.pi) * phantom.spacing[0]
        size = f"{max(2 * round(diameter / 2), 2)} mm"
        contact = " touching the skull" if _beside(mask, skull) else ""
        place = f"{finding.quadrant} row {row + 1} column {column + 1}"
        phrases.append(((row, column), f"{finding.density} {size} {place}{contact}"))
    return ", ".join(phrase for _, phrase in sorted(phrases)) or NO_FINDING_CAPTION


def _beside(mask: np.ndarray, other: np.ndarray) -> bool:
    """Whether a pixel of a mask ``(H, W)`` has a pixel of another mask above, below, left or right of it."""
    grown = np.zeros_like(mask)
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return bool((grown & other).any())


def _texts() -> tuple[str, ...]:
    """Return texts that hold every word of questions, answers, captions and reports."""
    protocol: Callable[..., str] = find_protocol("meduni-vqa").prompt
    texts = ["user\n", "assistant\n", SLICE_QUESTION, REPORT_QUESTION, NO_FINDING_CAPTION]
    for question, choices, _ in FINDINGS_QUESTIONS.values():
        listed: Sequence[tuple[str, ...]] = [choices[shift:] + choices[:shift] for shift in range(len(choices))]
        texts += [protocol(question, dict(zip("ABCD", one, strict=False))) for one in listed]
        texts += [protocol(question), question, *choices]
    for number in range(1, 23):
        for density in ("hyperdense", "hypodense"):
            for quadrant in ("right anterior", "left anterior", "right posterior", "left posterior"):
                place = f"{quadrant} row {number % 6 + 1} column {number % 6 + 1}"
                texts.append(f"{density} {number} mm {place} touching the skull, {density}")
                named = f"{density.capitalize()} finding of {number} mm, {quadrant}"
                texts.append(f"{named}, touching the skull. {named}.")
    return tuple(texts)


#: a smaller encoder, which trains on two processor cores, and a tokenizer in which each word of the texts is one token
FINDINGS_SHAPE = SmallShape(
    hidden_size=96, intermediate_size=192, layers=3, text_intermediate_size=192, texts=_texts(), vocabulary=900
)
