# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The evaluation of every bundle under the presets ``released`` and ``makers``, on each data set's own files."""

from __future__ import annotations

import pytest
from test_evaluate_bundles import BUNDLES, write_amos, write_rad3d

LIMITS = {"m3d_vqa": 600, "rad3d": 1800, "amos_mm": None}


@pytest.fixture
def files(tmp_path, m3d):
    """Return a function: benchmark -> the settings that name its small files."""
    return {
        "m3d_vqa": lambda: {"dataset_dir": str(m3d)},
        "rad3d": lambda: write_rad3d(tmp_path / "data"),
        "amos_mm": lambda: write_amos(tmp_path / "data"),
    }


def argument(line, transform, name):
    """The recorded argument of a transform."""
    stages = line["settings"]["preprocessing"]
    (found,) = [one["arguments"] for stage in stages for one in stage["transforms"] if one["name"] == transform]
    return found[name]


@pytest.mark.parametrize("benchmark", LIMITS)
@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("preset", ["released", "makers"])
def test_every_benchmark_under_a_preset(evaluate, files, preset, bundle, benchmark):
    # the three windows of MedGemma need Hounsfield units, which these files do not have
    given = {"windows": "auto"} if bundle == "medpruner_medgemma" else {}
    configs = ("inference", "evaluate", f"preset_{preset}")
    lines, metrics = evaluate(bundle=bundle, configs=configs, **given, **files[benchmark]())
    assert {line["status"] for line in lines} == {"ok"}
    assert metrics["failed"] == 0
    assert {line["settings"]["preset"] for line in lines} == {preset}
    first = lines[0]
    assert first["slices"]["kept"] == first["slices"]["total"]
    assert argument(first, "InterSliceAnchorFilter", "threshold") is None
    if preset == "released":
        assert argument(first, "SliceLimit", "max_slices") == LIMITS[benchmark]
        assert first["settings"]["pruner"]["name"] == "medpruner_released"
        place = "SLICE {place}: " if bundle == "medpruner_medgemma" else ""
        assert first["settings"]["prompt"]["before_slice"] == place
    else:
        assert first["settings"]["pruner"] is None
        assert first["tokens"]["kept"] == first["tokens"]["unpruned"]
        assert argument(first, "JpegSlices", "jpeg") is (bundle == "medpruner_medgemma")
