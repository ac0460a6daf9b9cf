# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Ray Data with stages that load no model: how far a stage runs ahead, and what ends a process or the run."""

from __future__ import annotations

import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import timed_stages

from monai_medpruner.archive import pipeline
from monai_medpruner.archive.pipeline import ATTEMPTS, ray_cluster, streamed
from monai_medpruner.errors import EngineUnreachableError

# not imported here: the package sets what Ray reads when it is imported
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray (the extra ray) is not installed")

STUDIES = 24
STORE_GB = 0.1


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patched:  # Ray's processes import the stages from here
        folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
        with ray_cluster(buffer_gb=STORE_GB):
            yield


@pytest.fixture
def send(monkeypatch, tmp_path):
    """Return a function: stages, buffer -> the ids that came out, and what the stages did, in its order."""

    def send(buffer_gb, **stages):
        for name, stage in stages.items():
            monkeypatch.setattr(pipeline, name, stage)
        log = tmp_path / "log"
        groups = [[{"id": str(number)}] for number in range(STUDIES)]
        studies = streamed(groups, str(log), answer_on_gpu=True, buffer_gb=buffer_gb)
        found = [study.items[0]["id"] for study in studies]
        return found, [tuple(line.split()) for line in log.read_text(encoding="utf-8").splitlines()]

    return send


def furthest_ahead(log):
    """The most studies that were read and not yet given to the last stage."""
    ahead = most = 0
    for stage, _ in log:
        ahead += {"read": 1, "answer": -1}.get(stage, 0)
        most = max(most, ahead)
    return most


@pytest.mark.parametrize(
    ("buffer_gb", "bounded"),
    [pytest.param(0.004, True, id="small"), pytest.param(STORE_GB, False, id="large", marks=pytest.mark.full)],
)
def test_a_slow_stage_holds_the_reader_back(send, buffer_gb, bounded):
    """4 studies fit into the small buffer, all into the large one, with which the reader does run ahead."""
    stages = {"ReadStudies": timed_stages.Read, "EncodeStudies": timed_stages.BulkyEncode}
    found, log = send(buffer_gb, **stages, AnswerStudies=timed_stages.SlowAnswer)
    assert sorted(found, key=int) == [str(number) for number in range(STUDIES)]
    most = furthest_ahead(log)
    # in the small buffer 4, and one in each of the three processes
    assert most <= 7 if bounded else most > 14


@pytest.mark.full
def test_a_study_that_ends_its_process_is_lost_alone(send):
    stages = {"ReadStudies": timed_stages.Read, "EncodeStudies": timed_stages.PoisonedEncode}
    found, log = send(None, **stages, AnswerStudies=timed_stages.Answer)
    others = [str(number) for number in range(STUDIES) if str(number) != timed_stages.POISON]
    assert sorted(found, key=int) == others
    tried = Counter(identity for stage, identity in log if stage == "encode")
    assert tried[timed_stages.POISON] == ATTEMPTS
    assert all(tried[one] == 1 for one in others)


def test_an_error_that_ends_the_run(send):
    stages = {"ReadStudies": timed_stages.Read, "EncodeStudies": timed_stages.Encode}
    with pytest.raises(EngineUnreachableError, match="no answer from the server"):
        send(None, **stages, AnswerStudies=timed_stages.Unreachable)
