# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""No text of a DICOM header reaches the app's answers, overlays, errors or log; with a server where there is one."""

from __future__ import annotations

import gzip
import json
import logging
import traceback
from pathlib import Path

import pytest
from label_server import TINY_CONF
from marked_series import MARKER, write_marked_series

from monai_medpruner.errors import UnreadableVolumeError, own_error
from monai_medpruner.label.configuration import configuration
from monai_medpruner.label.parameters import OverlayParameters
from monai_medpruner.label.study_model import StudyModel


@pytest.fixture(scope="module")
def model():
    return StudyModel.from_configuration(configuration(TINY_CONF))


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd"])
def test_answer_and_overlay(model, tmp_path, caplog, capsys, extension):
    caplog.set_level(logging.DEBUG)
    series = write_marked_series(tmp_path / "series")
    assert MARKER.encode() in next(series.iterdir()).read_bytes()
    answer = model.ask(series, "Is it?", [("Before?", "Yes.")])
    folder = tmp_path / "overlay"
    folder.mkdir()
    file, described = model.write_overlay(series, OverlayParameters(extension, compress=False), folder)
    written = capsys.readouterr()
    said = json.dumps([answer, described]) + written.out + written.err + caplog.text + file.name
    assert "answered" in said
    assert MARKER not in said
    content = file.read_bytes()
    assert MARKER.encode() not in (gzip.decompress(content) if extension == ".nii.gz" else content)


def test_error(model, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    def cut_short(dataset, _):
        dataset.PixelData = dataset.PixelData[:100]
        dataset["PixelData"].VR = "OW"

    with pytest.raises(RuntimeError) as raised:
        model.ask(write_marked_series(tmp_path / "series", cut_short), "Is it?")
    assert isinstance(own_error(raised.value), UnreadableVolumeError)
    assert MARKER not in "".join(traceback.format_exception(raised.value)) + caplog.text


def test_server(server):
    """Answers, an overlay and an error of a real server, and all that it has logged."""
    write_marked_series(server.studies / "marked")
    for task in ("ask", "report", "pruning_overlay"):
        status, answer = server.infer(task, "image=marked", {"question": "Is it?"} if task == "ask" else {})
        assert status == 200, answer
        assert MARKER not in (answer if isinstance(answer, str) else json.dumps(answer))
    status, answer = server.infer("ask", "image=marked", {"question": ""})
    assert status == 400
    assert MARKER not in json.dumps(answer)
    assert MARKER not in server.log()
    kept = [path for path in Path(server.log_file).parent.rglob("*") if path.is_file() and "marked" not in path.parts]
    assert not [path.name for path in kept if MARKER.encode() in path.read_bytes()]
