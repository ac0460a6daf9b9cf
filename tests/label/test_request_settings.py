# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A request's settings change only what they name."""

from __future__ import annotations

from monai.transforms import Compose

from monai_medpruner.label.request_settings import adjust
from monai_medpruner.transforms import InterSliceAnchorFilterd, TimedCompose


def test_gamma_keeps_the_guard_for_small_lesions():
    server = Compose(
        [TimedCompose("filter", InterSliceAnchorFilterd("image", 0.025, guard_mm=12, guard_threshold=0.3))]
    )
    changed, _ = adjust(server, None, {"gamma": 0.025}, {"gamma": 0.1})
    chosen = changed.transforms[0].transforms[0].array_form
    assert (chosen.threshold, chosen.guard_mm, chosen.guard_threshold) == (0.1, 12.0, 0.3)


def test_gamma_keeps_the_keys_and_the_axis():
    server = Compose(
        [
            TimedCompose(
                "filter",
                InterSliceAnchorFilterd(
                    ("image", "label"), 0.025, spatial_dim=0, ref_key="label", allow_missing_keys=True
                ),
            )
        ]
    )
    changed, _ = adjust(server, None, {"gamma": 0.025}, {"gamma": 0.1})
    before, after = (tree.transforms[0].transforms[0] for tree in (server, changed))
    assert (after.keys, after.ref_key, after.allow_missing_keys) == (("image", "label"), "label", True)
    assert (after.array_form.threshold, after.array_form.spatial_dim) == (0.1, 0)
    assert (before.array_form.threshold, before.array_form.spatial_dim) == (0.025, 0)
