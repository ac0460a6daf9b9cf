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
