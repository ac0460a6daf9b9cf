# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The baselines: pooling against PyTorch's, random tokens against their promises."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import AveragePoolingPruner, RandomTokensPruner, SliceTokens


def slices(*grids, channels=6, numbers=None):
    length = max(rows * columns for rows, columns in grids)
    generator = torch.Generator().manual_seed(1)
    valid = torch.stack([torch.arange(length) < rows * columns for rows, columns in grids])
    tokens = torch.randn(len(grids), length, channels, generator=generator)
    return SliceTokens(tokens, valid, list(grids), numbers=numbers)


@pytest.mark.parametrize("pool", [2, 3])
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (1, 3), (2, 2)])
def test_pooling_is_pytorchs(grid, pool):
    given = slices(grid, (6, 8))
    pruned = AveragePoolingPruner(pool=pool)(given)
    rows, columns = grid
    image = given.tokens[0, : rows * columns].T.reshape(1, -1, rows, columns)
    # edge cells are means over what they hold
    expected = avg_pool2d(image, pool, ceil_mode=True, count_include_pad=False)
    kept = pruned.tokens[0][pruned.keep[0]]
    torch.testing.assert_close(kept, expected[0].flatten(1).T)
    places = pruned.keep[0].nonzero().squeeze(1)
    assert places.tolist() == [r * columns + c for r in range(0, rows, pool) for c in range(0, columns, pool)]
    assert pruned.merged_into[0, : rows * columns].unique().tolist() == places.tolist()


def test_random_tokens_are_a_share_of_each_slice_and_not_the_same():
    given = slices((10, 10), (10, 10), (3, 3), numbers=[4, 5, 6])
    pruned = RandomTokensPruner(keep_ratio=0.2, contextual_ratio=0.0)(given)
    assert pruned.keep.sum(1).tolist() == [20, 20, 2]
    assert not torch.equal(pruned.keep[0], pruned.keep[1])
    other = RandomTokensPruner(keep_ratio=0.2, contextual_ratio=0.0, seed=1)(given)
    assert not torch.equal(pruned.keep[0], other.keep[0])


def test_every_token_has_its_chance():
    given = slices(*[(5, 5)] * 400)
    kept = RandomTokensPruner(keep_ratio=0.2, contextual_ratio=0.0)(given).keep.float().mean(0)
    assert kept.mean().item() == pytest.approx(0.2)
    assert kept.min() > 0.1
    assert kept.max() < 0.3


@pytest.mark.parametrize("keep_ratio", [0, 1.1, float("nan")])
def test_keep_ratio_outside_its_range(keep_ratio):
    with pytest.raises(SettingsError, match="keep_ratio"):
        RandomTokensPruner(keep_ratio=keep_ratio)


@pytest.mark.parametrize("pool", [1, 0, -2])
def test_pool_outside_its_range(pool):
    with pytest.raises(SettingsError, match="pool"):
        AveragePoolingPruner(pool=pool)
