# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs of the bundles' evaluation."""

from __future__ import annotations

import pytest
from benchmark_runs import bundle_arguments, read_lines, read_metrics, write_m3d
from monai.bundle import run


@pytest.fixture
def m3d(tmp_path):
    return write_m3d(tmp_path / "m3d")


@pytest.fixture
def evaluate(repository, tmp_path):
    """Return a function: settings -> the lines and the metrics of a run into ``tmp_path / name``."""

    def evaluate(name="out", **settings):
        run(**bundle_arguments(repository, tmp_path / name, **settings))
        return read_lines(tmp_path / name), read_metrics(tmp_path / name)

    return evaluate
