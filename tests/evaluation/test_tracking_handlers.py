# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""MONAI's own TensorBoard and MLflow handlers, added by a configuration, write retention and stage times."""

from __future__ import annotations

import json

import pytest
from benchmark_runs import bundle_arguments, read_lines, write_m3d
from monai.bundle import run

from monai_medpruner.results import STAGES

#: so that tokens are dropped
PRUNING = {"tau": 0.3, "temperature": 0.005}


def expected(lines):
    """Retention and mean seconds per volume, from the lines."""
    volumes = {line["volume_id"]: line for line in lines}.values()
    kept = {
        f"retention_{part}": sum(one[part]["kept"] for one in volumes) / sum(one[part][of] for one in volumes)
        for part, of in (("slices", "total"), ("tokens", "unpruned"))
    }
    spent = {f"seconds_{stage}": sum(line["seconds"][stage] for line in lines) / len(volumes) for stage in STAGES}
    return kept | spent


def tracked(repository, tmp_path, handler):
    """Run an evaluation with a further handler."""
    (tmp_path / "tracking.json").write_text(json.dumps({"+handlers": [handler]}))
    arguments = bundle_arguments(repository, tmp_path / "out", dataset_dir=str(write_m3d(tmp_path / "m3d")), **PRUNING)
    arguments["config_file"] = [*arguments["config_file"], str(tmp_path / "tracking.json")]
    run(**arguments)
    return expected(read_lines(tmp_path / "out"))


def test_tensorboard(repository, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tensorboard"
    handler = {"_target_": "TensorBoardStatsHandler", "log_dir": str(folder), "iteration_log": False}
    values = tracked(repository, tmp_path, handler)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(values)
    for name, value in values.items():
        assert events.Scalars(name)[-1].value == pytest.approx(value, rel=1e-5)
    assert 0 < values["retention_tokens"] < 1
    assert values["seconds_encode"] > 0


def test_mlflow(repository, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow (pip install mlflow)")
    store = f"sqlite:///{tmp_path / 'mlruns.db'}"
    handler = {"_target_": "MLFlowHandler", "tracking_uri": store, "iteration_log": False, "close_on_complete": True}
    values = tracked(repository, tmp_path, handler)
    client = mlflow.MlflowClient(tracking_uri=store)
    (experiment,) = [one for one in client.search_experiments() if one.name == "monai_experiment"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.metrics == pytest.approx(values)
