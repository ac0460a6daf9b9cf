# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What is special to the rivals: pooling against PyTorch's, random tokens against their promises."""

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
    return SliceTokens(tokens, valid, None, None, list(grids), numbers=numbers)


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
    assert pruned.carrier[0, : rows * columns].unique().tolist() == places.tolist()


def test_random_tokens_are_a_share_of_each_slice_and_not_the_same():
    given = slices((10, 10), (10, 10), (3, 3), numbers=[4, 5, 6])
    pruned = RandomTokensPruner(share=0.2, contextual_ratio=0.0)(given)
    assert pruned.keep.sum(1).tolist() == [20, 20, 2]
    assert not torch.equal(pruned.keep[0], pruned.keep[1])
    other = RandomTokensPruner(share=0.2, contextual_ratio=0.0, seed=1)(given)
    assert not torch.equal(pruned.keep[0], other.keep[0])


def test_every_token_has_its_chance():
    given = slices(*[(5, 5)] * 400)
    kept = RandomTokensPruner(share=0.2, contextual_ratio=0.0)(given).keep.float().mean(0)
    assert kept.mean().item() == pytest.approx(0.2)
    assert kept.min() > 0.1
    assert kept.max() < 0.3


@pytest.mark.parametrize("share", [0, 1.1, float("nan")])
def test_share_outside_its_range(share):
    with pytest.raises(SettingsError, match="share"):
        RandomTokensPruner(share=share)


@pytest.mark.parametrize("pool", [1, 0, -2])
def test_pool_outside_its_range(pool):
    with pytest.raises(SettingsError, match="pool"):
        AveragePoolingPruner(pool=pool)
