# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How the stages share the CPUs and GPUs of a cluster."""

from __future__ import annotations

import math

import pytest

from monai_medpruner.archive import Workers
from monai_medpruner.errors import SettingsError


@pytest.mark.parametrize("cpus", [1, 2, 8, 64])
@pytest.mark.parametrize("gpus", [0, 1, 2, 4, 7])
@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("given", [{}, {"encoders": 3, "answerers": 2}, {"readers": 5, "encoders": 8}])
def test_all_processes_fit(cpus, gpus, on_gpu, given):
    shares = Workers(**given).shares(cpus, gpus, on_gpu)
    for name, count in given.items():
        assert shares[name]["count"] == count
    assert sum(share["count"] * share["num_cpus"] for share in shares.values()) <= cpus
    # equal processes fill one GPU after the other; none may lie across two
    each = [share["num_gpus"] for share in shares.values() for _ in range(share["count"]) if share["num_gpus"]]
    assert len(set(each)) <= 1
    if each:
        assert len(each) <= gpus * math.floor(1 / each[0])
    assert bool(shares["encoders"]["num_gpus"]) == bool(gpus)
    assert bool(shares["answerers"]["num_gpus"]) == bool(gpus and on_gpu)
    assert shares["readers"]["num_gpus"] == 0


def test_defaults():
    on_cpu = Workers().shares(2, 0, True)
    assert {name: share["count"] for name, share in on_cpu.items()} == {"readers": 1, "encoders": 1, "answerers": 1}
    server = Workers().shares(32, 4, False)
    assert {name: share["count"] for name, share in server.items()} == {"readers": 8, "encoders": 4, "answerers": 4}
    assert server["encoders"]["num_gpus"] == 1
    assert Workers().shares(32, 4, True)["encoders"]["num_gpus"] == 0.5


def test_no_process_is_refused():
    with pytest.raises(SettingsError, match="encoders must be at least 1, got 0"):
        Workers(encoders=0)
