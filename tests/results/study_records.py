# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Records for the tests of results."""

from __future__ import annotations

import torch

from monai_medpruner.results import SliceRecord, StudyRecord, VolumeGeometry


def slice_record(grid, seed, importance=True):
    """Return a slice record: half of the tokens are selected, the others are merged into one contextual token."""
    generator = torch.Generator().manual_seed(seed)
    size = grid[0] * grid[1]
    primary = torch.arange(size) < size // 2
    contextual = torch.arange(size) == size - 1
    merged_into = torch.where(primary, torch.arange(size), size - 1)
    scores = torch.rand(size, generator=generator) if importance else None
    return SliceRecord(grid, primary, contextual, merged_into, scores)


def study_record(importance=True, distances=True, **changed):
    """Return a record with two of five slices, on an oblique grid."""
    affine = torch.tensor([[0.0, 2, 0, 3], [1, 0, 0.1, 4], [0, 0.2, 3, 5], [0, 0, 0, 1]], dtype=torch.float64)
    geometry = VolumeGeometry((8, 12, 5), affine, affine.flip(1), (0.0, 3.0, 6.5, 9.0, 12.0), ((1, 8), (0, 12)))
    fields = {
        "volume_id": "ab12",
        "total_slices": 5,
        "slice_indices": (1, 4),
        "slices": (slice_record((2, 3), 0, importance), slice_record((2, 3), 1, importance)),
        "geometry": geometry,
        "slice_distances": (float("nan"), 0.0, 0.25, 0.01, 0.5) if distances else None,
        "image": "studies/größe/ct.nii.gz",
        "source": "NIfTI",
        "plane": "axial",
        "order": "feet to head",
        "notes": ("The slices lie unevenly.",),
        "settings": {"pruner": {"name": "nucleus", "tau": 0.9}, "preprocessing": [{"stage": "load"}]},
        "seconds": {"load": 0.5, "filter": 0.25, "encode": 2.0, "select": 0.125},
    }
    return StudyRecord(**{**fields, **changed})
