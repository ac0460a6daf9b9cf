# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Collation that keeps the questions of each item together."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor

from monai_medpruner.data import collate_volumes
from monai_medpruner.errors import VolumeShapeError


def item(depth, *questions, height=4):
    affine = torch.diag(torch.tensor([1.0, 1.0, float(depth), 1.0]))
    meta = {"kept_indices": list(range(depth)), "notes": ["seen"] * (depth - 1)}
    volume = MetaTensor(torch.full((1, height, 5, depth), float(depth)), affine=affine, meta=meta)
    return {"image": volume, "question": list(questions), "seconds": {"load": float(depth)}}


def test_questions_are_kept_and_volumes_are_padded_at_the_end():
    loader = DataLoader(Dataset([item(2, "a", "b"), item(3, "c")]), batch_size=2, collate_fn=collate_volumes)
    (batch,) = loader
    assert batch["question"] == [["a", "b"], ["c"]]
    assert batch["seconds"] == [{"load": 2.0}, {"load": 3.0}]
    assert batch["image"].shape == (2, 1, 4, 5, 3)
    assert (batch["image"][0, ..., :2] == 2).all()
    assert (batch["image"][0, ..., 2:] == 0).all()
    for index, depth in enumerate((2, 3)):
        meta = batch["image"][index].meta
        assert list(meta["kept_indices"]) == list(range(depth))
        assert list(meta["notes"]) == ["seen"] * (depth - 1)
        assert batch["image"][index].affine[2, 2] == depth


def test_plain_tensors():
    batch = collate_volumes([{"image": torch.zeros(1, 2, 2, 3)}, {"image": torch.ones(1, 2, 2, 3)}])
    assert batch["image"].shape == (2, 1, 2, 2, 3)


def test_slices_of_different_sizes_cannot_form_a_batch():
    with pytest.raises(VolumeShapeError, match="batch size of 1"):
        collate_volumes([item(2, "a"), item(2, "b", height=6)])
