# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Ground truth of tokens and blocks, compared with counts of voxels."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import Compose

from monai_medpruner.data.phantom import PRESETS, generate_phantom
from monai_medpruner.training import BLOCK_PIXELS, TOKEN_PIXELS, load_phantom, training_phantom
from monai_medpruner.transforms import CheckVolumed, IntensityWindowsd, SlicePlaned

PREPROCESSING = Compose(
    [
        CheckVolumed("image"),
        SlicePlaned(["image", "organs", "lesion"]),
        IntensityWindowsd("image", windows=[[-160, 340]]),
    ]
)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_blocks_match_the_masks(seed):
    phantom = generate_phantom(seed, PRESETS["small"])
    seen = training_phantom(phantom, PREPROCESSING, TOKEN_PIXELS)
    keys = {"image": None, "organs": phantom.organs, "lesion": phantom.lesion_mask}
    masks = PREPROCESSING({name: load_phantom(phantom, voxels) for name, voxels in keys.items()})
    organs, lesion = (masks[name].numpy()[0].astype(int).transpose(2, 0, 1) for name in ("organs", "lesion"))
    assert seen.lesion_blocks.sum() == phantom.lesion_mask.sum()
    side, parts = 96 // TOKEN_PIXELS, TOKEN_PIXELS // BLOCK_PIXELS
    for place in range(0, len(organs), 5):
        for token in range(side**2):
            for block in range(parts**2):
                row = token // side * TOKEN_PIXELS + block // parts * BLOCK_PIXELS
                column = token % side * TOKEN_PIXELS + block % parts * BLOCK_PIXELS
                square = (place, slice(row, row + BLOCK_PIXELS), slice(column, column + BLOCK_PIXELS))
                counts = np.bincount(organs[square].ravel(), minlength=15)
                assert counts[seen.organ_blocks[place, token, block]] == counts.max()
                assert seen.lesion_blocks[place, token, block] == lesion[square].sum()
