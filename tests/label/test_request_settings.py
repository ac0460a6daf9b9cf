# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a request's settings change, and what they leave alone."""

from __future__ import annotations

from monai.transforms import Compose

from monai_medpruner.label.request_settings import adjust
from monai_medpruner.transforms import InterSliceAnchorFilterd, TimedCompose


def test_gamma_of_a_request_leaves_the_guard_for_small_lesions():
    server = Compose(
        [TimedCompose("filter", InterSliceAnchorFilterd("image", 0.025, guard_mm=12, guard_threshold=0.3))]
    )
    changed, _ = adjust(server, None, {"gamma": 0.025}, {"gamma": 0.1})
    chosen = changed.transforms[0].transforms[0].array_form
    assert (chosen.threshold, chosen.guard_mm, chosen.guard_threshold) == (0.1, 12.0, 0.3)
