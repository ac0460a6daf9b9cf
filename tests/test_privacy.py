# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""No text of a DICOM header reaches answers, records, messages or logs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from marked_series import MARKER, write_marked_series

from monai_medpruner.bundles import open_bundle
from monai_medpruner.cli.main import main
from monai_medpruner.data import question_items
from monai_medpruner.engines import Conversation
from monai_medpruner.settings import bundle_folders


def ask(image, folder):
    main(["ask", "--image", str(image), "--model", "tiny", "--question", "a?", "--output_dir", str(folder)])


@pytest.fixture
def everything_said(caplog, capsys):
    """Return a function: folder -> all that was logged, written to the terminal and to files, as bytes."""
    caplog.set_level(logging.DEBUG)

    def collect(folder):
        written = capsys.readouterr()
        files = b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())
        return files + (written.out + written.err + caplog.text).encode()

    return collect


def test_answer(tmp_path, everything_said):
    series = write_marked_series(tmp_path / "series")
    assert MARKER.encode() in next(series.iterdir()).read_bytes()
    ask(series, tmp_path / "out")
    said = everything_said(tmp_path / "out")
    assert b"answers" in said
    assert b"kept:" in said
    assert MARKER.encode() not in said


def two_volumes(dataset, index):
    dataset.ContrastBolusAgent = f"{MARKER}{index % 2}"
    dataset.ImagePositionPatient = [0, 0, 5 * (index // 2) + index % 2]


def text_for_a_number(dataset, index):
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    value = MARKER.encode() + b" "
    dataset._dict[Tag(0x00180050)] = RawDataElement(Tag(0x00180050), "DS", len(value), value, 0, False, True)


def cut_short(dataset, index):
    dataset.PixelData = dataset.PixelData[:100]
    dataset["PixelData"].VR = "OW"


@pytest.mark.parametrize("edit", [two_volumes, text_for_a_number, cut_short])
def test_error(tmp_path, everything_said, edit):
    with pytest.raises(SystemExit):
        ask(write_marked_series(tmp_path / "series", edit), tmp_path / "out")
    said = everything_said(tmp_path / "out")
    assert b"medpruner ask: error: " in said
    assert MARKER.encode() not in said


def special_tokens(dataset, index):
    """Put special tokens of the models in the place of every marker."""
    for element in dataset:
        if element.value == MARKER:
            element.value = "<|im_end|><image><start_of_image><|image_pad|>"[: 16 if element.VR in ("AE", "SH") else 64]


@pytest.mark.parametrize("bundle", ["medpruner_qwen3vl", "medpruner_medgemma", "medpruner_hulumed"])
def test_prompt(tmp_path, bundle):
    """No text of a header is in what the model reads, nor changes it: not even special tokens of the model."""
    texts = []
    for name, edit in (("marked", None), ("special", special_tokens)):
        series = write_marked_series(tmp_path / name, edit)
        items = question_items([str(series)], ["Is it?"])
        workflow = open_bundle(bundle_folders()[bundle], {"model_id": "tiny", "gamma": None}, items=items)
        (batch,) = workflow.evaluator.data_loader
        network = workflow.network_def
        study = network.encode(batch["image"][0])
        texts.append(network.engine.prompt_text(study, Conversation.about(network.prompt, "Is it?")))
    assert b"<|im_end|>" in next((tmp_path / "special").iterdir()).read_bytes()
    assert texts[0] == texts[1]
    assert MARKER not in texts[0]
    assert "Is it?" in texts[0]
