# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What is told of memory, and which volumes are too large for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_medpruner.errors import UnreadableVolumeError
from monai_medpruner.memory import available_memory, check_fits_memory, free_memory, peak_memory


def test_memory():
    assert 2**20 < available_memory() < 2**50
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50
    assert free_memory(torch.device("meta")) is None
    check_fits_memory((10, 10, 10), 4)
    with pytest.raises(UnreadableVolumeError, match="1000000 x 1000000 x 1000000 voxels"):
        check_fits_memory((10**6, 10**6, 10**6), 4)
    with pytest.raises(UnreadableVolumeError, match="30000 x 30000 x 30000 voxels"):
        check_fits_memory(tuple(np.full(3, 30000, dtype=np.int16)), 4)


@pytest.mark.parametrize(("available", "fits"), [(4000, True), (3999, False)])
def test_memory_limit_is_exact(monkeypatch, available, fits):
    monkeypatch.setattr("monai_medpruner.memory.available_memory", lambda: available)
    if fits:
        assert check_fits_memory((10, 10, 10), 4) is None
    else:
        with pytest.raises(UnreadableVolumeError, match="GiB"):
            check_fits_memory((10, 10, 10), 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the peak is the GPU's")
def test_peak_is_that_of_the_process():
    before = peak_memory()
    assert 2**24 < before < 2**50
    held = np.ones(2**25)  # 256 MiB
    assert peak_memory() >= held.nbytes
    del held
    assert peak_memory() >= before
