# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Control characters of answers, names and tables reach files, and no terminal."""

from __future__ import annotations

import json
import logging
import os
import shutil
import unicodedata
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest

from monai_medpruner.cli.main import main
from monai_medpruner.errors import UnreadableVolumeError, VolumeError
from monai_medpruner.results import json_line, read_lines
from monai_medpruner.terminal_text import package_logger, printable

#: clears a screen, sets a title, reverses text, hides a line; C1 forms of the same; a name that is no UTF-8
HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eabc\u2066\r\x00\x08\x7f\udcff"
EXPECTED = r"\u001b[2J\u001b]0;title\u0007\u009b31m\u202eabc\u2066\u000d\u0000\u0008\u007f\udcff"


def hidden(text):
    """The characters of a text that a terminal does not show but obeys, found by their Unicode properties."""
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        one
        for one in text
        if (unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") and one not in "\n\t")
        or unicodedata.bidirectional(one) in bidirectional
    ]


def write_volume(path):
    voxels = np.random.default_rng(0).integers(-150, 250, (32, 32, 4), dtype=np.int16)
    voxels[0, 0] = -1000
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


def test_every_control_character():
    for number in range(0x11000):
        character = chr(number)
        shown = printable(character)
        assert not hidden(shown), hex(number)
        assert (shown == character) or json.loads(f'"{shown}"') == character, hex(number)
    assert printable("Größe\t5 µm\n病灶 👍🏽 שלום") == "Größe\t5 µm\n病灶 👍🏽 שלום"
    assert printable(HOSTILE) == EXPECTED


def test_errors_and_logs(caplog):
    """Of any kind, however they are shown."""
    for kind in (UnreadableVolumeError, VolumeError):
        assert str(kind(f"{HOSTILE} is missing")) == f"{EXPECTED} is missing"
    logger = package_logger("monai_medpruner.test")
    with caplog.at_level(logging.WARNING):
        logger.warning("item %s failed", HOSTILE)
    assert caplog.messages == [f"item {EXPECTED} failed"]


def test_every_module_logs_printable_text(repository):
    found = [
        path
        for path in (repository / "monai_medpruner").rglob("*.py")
        if "getLogger(__name__)" in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_lines_keep_the_text():
    line = {"image": HOSTILE, "answer": "Größe"}
    written = json_line(line).encode()
    assert json.loads(written) == line
    assert "Größe".encode() in written


@pytest.fixture
def run(tmp_path, capsys, monkeypatch, caplog):
    """Return a function: words of a command -> what it wrote to the terminal, without what a progress bar does."""

    def run(*words, status=0):
        caplog.clear()
        with pytest.raises(SystemExit) if status else nullcontext() as ended:
            main([str(word) for word in words])
        assert status == (ended.value.code if status else 0)
        written = capsys.readouterr()
        return written.out + written.err.replace("\r", "") + caplog.text  # a progress bar returns to its beginning

    return run


@pytest.fixture
def hostile_folder(tmp_path):
    folder = tmp_path / HOSTILE.replace("\x00", "").replace("/", "")
    folder.mkdir()
    return folder


def test_ask_and_answers(run, hostile_folder, tmp_path, monkeypatch):
    from monai_medpruner.engines.transformers_engine import TransformersEngine

    image = write_volume(hostile_folder / "volume.nii.gz")
    answer = TransformersEngine.generate

    def hostile_answer(self, study, conversations, stream=None):
        from dataclasses import replace

        if stream is not None:
            stream(HOSTILE, True)
        return [replace(one, text=HOSTILE) for one in answer(self, study, conversations, None)]

    monkeypatch.setattr(TransformersEngine, "generate", hostile_answer)
    words = ["ask", "--image", image, "--model", "tiny", "--max_new_tokens", "2", "--output_dir", tmp_path / "out"]
    question = HOSTILE.replace("\udcff", "")
    shown = run(*words, "--question", question, "b?")
    assert hidden(shown) == []
    assert EXPECTED in shown
    lines = read_lines(tmp_path / "out" / "answers.jsonl")
    assert [line["answer"] for line in lines] == [HOSTILE, HOSTILE]
    assert [line["question"] for line in lines] == [question, "b?"]
    assert os.fspath(image) == lines[0]["image"]
    shown = run("answers", tmp_path / "out")
    assert hidden(shown) == []
    assert shown.count(r"\u202eabc\u2066") == 4  # image, question, and two answers
    named = shutil.copytree(tmp_path / "out", hostile_folder / "out")
    shown = run("compare", named / "no.jsonl", named / "none.jsonl", status=1)
    assert r"\u202e" in shown
    assert hidden(shown) == []


@pytest.mark.parametrize("content", [b"", b"\x1b]0;x\x07 is no volume"])
def test_names_in_messages(run, hostile_folder, tmp_path, content):
    image = hostile_folder / f"v{HOSTILE[:8]}.nii.gz"
    image.write_bytes(content)
    shown = run("ask", "--image", image, "--model", "tiny", "--question", "a?", "--output_dir", tmp_path, status=1)
    assert r"\u001b" in shown
    assert hidden(shown) == []


def test_scores_of_a_table(run, tmp_path):
    lines = [
        {"id": str(i), "image": "a", "question": HOSTILE[:20], "answer": HOSTILE[:20], "reference": "x", "task": "open"}
        | {"type": HOSTILE[:20], "status": "ok"}
        for i in range(3)
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(map(json_line, lines)), encoding="utf-8")
    for words in (["score", file], ["compare", file, file]):
        assert hidden(run(*words)) == []
