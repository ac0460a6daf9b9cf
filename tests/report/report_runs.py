# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Folders of runs for the tests of pages, without a model: the image goes through the real transforms."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Compose

from monai_medpruner.networks.study_record import study_record
from monai_medpruner.results import Answer, SliceRecord, append_line, result_line
from monai_medpruner.transforms import (
    CheckVolumed,
    IntensityWindowsd,
    InterSliceAnchorFilterd,
    LoadVolumed,
    SlicePlaned,
    SliceRanged,
    TimedCompose,
)

MODEL = {"model_id": "tiny", "model_type": "qwen3_vl", "random_weights": True}
PRUNER = {"name": "nucleus", "tau": 0.6, "temperature": 2.0, "importance_scale": "relative", "scope": "slice"}


def write_ct(path, depth=12, seed=0, lesion=True):
    """A CT of 40 x 56 pixels, 3 mm apart, whose slices change; its lesion as a mask beside it."""
    random = np.random.default_rng(seed)
    voxels = np.full((56, 40, depth), -1000, np.int16)  # right to left, anterior to posterior, inferior to superior
    voxels[8:44, 6:30] = 40
    for index in range(depth):
        voxels[10 : 12 + 2 * (index % 5), 8:20, index] = 300  # grows, so that the slices differ
    mask = np.zeros(voxels.shape, np.uint8)
    if lesion:
        mask[30:37, 10:17, depth // 3 : depth // 3 + 3] = 1
        voxels[mask > 0] = 160
    voxels += random.integers(-8, 8, voxels.shape, dtype=np.int16)
    affine = np.diag([-0.8, -0.9, 3.0, 1.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    nib.save(
        nib.Nifti1Image(
            np.ascontiguousarray(mask[::-1, :, ::-1]),
            affine @ np.array([[-1, 0, 0, 55], [0, 1, 0, 0], [0, 0, -1, depth - 1], [0, 0, 0, 1]]),
        ),
        path.with_name("mask.nii.gz"),
    )  # on the same grid, with other axes
    return path


def record_of(
    path,
    threshold=0.02,
    grid=(5, 7),
    seed=0,
    plane="acquired",
    scores=True,
    pruner=PRUNER,
    model=MODEL,
    modality="auto",
    **guard,
):
    """Record of the image: half of the tokens of each kept slice by a random score, the others merged or dropped."""
    chain = Compose(
        [
            TimedCompose(
                "load",
                [
                    LoadVolumed("image"),
                    CheckVolumed("image"),
                    SlicePlaned("image", plane),
                    IntensityWindowsd("image", modality),
                    SliceRanged("image", "all"),
                ],
            ),
            TimedCompose("filter", [InterSliceAnchorFilterd("image", threshold, **guard)]),
        ]
    )
    volume = chain({"image": str(path)})["image"]
    generator, records = torch.Generator().manual_seed(seed), []
    for _ in range(volume.shape[-1]):
        importance = torch.rand(grid[0] * grid[1], generator=generator) * 2
        order = importance.argsort(descending=True)
        primary = torch.zeros(len(order), dtype=torch.bool)
        primary[order[: len(order) // 2]] = True
        contextual = torch.zeros_like(primary)
        contextual[order[-1]] = True
        merged_into = torch.where(primary | contextual, torch.arange(len(order)), int(order[-1]))
        merged_into[order[-2]] = -1  # dropped
        records.append(SliceRecord(grid, primary, contextual, merged_into, importance if scores else None))
    settings = {"model": model, "pruner": pruner, "budget": None, "preprocessing": list(volume.meta["preprocessing"])}
    seconds = {"load": 0.5, "filter": 0.25, "encode": 2.0, "select": 0.125}
    return study_record(volume, "ab", records, settings, seconds)


def write_run(folder, record, answers=(("Is there a lesion?", "yes"),), notes=()):
    """Write a run's folder with answers about one study."""
    (folder / "records").mkdir(parents=True)
    record.save(folder / "records" / f"{record.name}.safetensors")
    with (folder / "answers.jsonl").open("a", encoding="utf-8") as file:
        for number, (question, answer) in enumerate(answers):
            item = {"id": str(number), "image": record.image, "question": question, "prompt": question}
            told = Answer(answer, {"prefill": 1.0, "decode": 0.5}, prompt_tokens=sum(record.kept_tokens) + 10)
            line = result_line(item, record.settings, record=record, answer=told, first=number == 0, notes=tuple(notes))
            append_line(file, line)
    return folder
