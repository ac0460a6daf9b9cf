# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Retention is a ratio of sums over volumes, each counted once; seconds are summed over questions, per volume."""

from __future__ import annotations

import pytest

from monai_medpruner.evaluation.run_means import RunMeans


def line(volume, slices, tokens):
    return {
        "volume_id": volume,
        "slices": {"kept": slices[0], "total": slices[1]},
        "tokens": {"kept": tokens[0], "unpruned": tokens[1]},
    }


def test_two_volumes_one_with_two_questions():
    means = RunMeans()
    assert means.scalars() == {}
    large, small = line("a", (10, 40), (50, 1000)), line("b", (5, 5), (50, 100))
    means.add(large, {"encode": 4.0, "decode": 1.0})
    means.add(large, {"encode": 0.0, "decode": 2.0})
    means.add(small, {"encode": 2.0, "decode": 1.0})
    assert means.scalars("x/") == pytest.approx(
        {
            "x/retention_slices": 15 / 45,
            "x/retention_tokens": 100 / 1100,
            "x/seconds_encode": 3.0,
            "x/seconds_decode": 2.0,
        }
    )
