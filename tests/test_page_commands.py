# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Every command on the pages runs, or its block says why not.

The bash blocks of a page run in order in one folder, with the files that the pages suppose (``ct.nii.gz``, ``studies``
and so on). Large numbers become small ones, and commands about published models get a tiny one with random weights;
nothing else is changed. A mark before a block, which the site shows, says what a reader needs for a published model,
``<!-- needs: WHAT -->``, or why the block cannot run here, ``<!-- not run: REASON -->``. Others name the tests that run
it: ``run`` and ``test`` (the README's, .ci/run) and ``data`` (test_reproduce_page.py).
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_medpruner.cli.main import main
from monai_medpruner.testing import save_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = re.compile(r"run|test|data: .+|not run: .{10,}")
#: larger than a test needs -> smaller
SMALLER = {"--count 20": "--count 1", "--slices 40:120": "--slices 1:3", "~/medpruner_cache": "cache"}
TINY = ("--model", "tiny", "--max_new_tokens", "2")
TINY_BUNDLE = ("--model_id", "path/to/checkpoint", "--revision", "none", "--max_new_tokens", "2")


def blocks(page):
    """The mark and the text of each bash block of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text):
    """The commands of a block as words: continued lines joined, variables written out, comments left out."""
    text = text.replace("\\\n", " ")
    for name, value in re.findall(r"^(\w+)=(\S+)$", text, flags=re.MULTILINE):
        text = re.sub(rf"^{name}=.*$", "", text, flags=re.MULTILINE).replace(f"${name}", value)
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def runnable(page):
    return [(mark, text) for mark, text in blocks(page) if not ELSEWHERE.fullmatch(mark)]


@pytest.fixture(scope="module")
def supposed(tmp_path_factory):
    """A folder with what the pages suppose that their reader has."""
    folder = tmp_path_factory.mktemp("supposed")
    main(["phantom", "--preset", "small", "--count", "1", "--seed", "7", "--out", str(folder / "phantoms20")])
    shutil.copy(folder / "phantoms20" / "volumes" / "phantom_000000.nii.gz", folder / "ct.nii.gz")
    (folder / "images.csv").write_text("image\nct.nii.gz\n", encoding="utf-8")
    write_series(folder / "series_folder", depth=4)
    save_tiny_checkpoint("qwen3_vl", folder / "path" / "to" / "checkpoint")
    return folder


def write_series(folder, depth):
    """A CT of a few slices as DICOM files."""
    folder.mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    random = np.random.default_rng(0)
    for index in range(depth):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.Modality, one.InstanceNumber = "CT", index + 1
        one.Rows, one.Columns, one.PixelSpacing, one.SliceThickness = 32, 32, [5, 5], 5
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 5 * index]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
        one.PixelData = random.integers(0, 2000, (32, 32), dtype=np.int16).tobytes()
        one.save_as(folder / f"{index}.dcm", enforce_file_format=True)


@pytest.fixture
def folder(supposed, tmp_path, monkeypatch):
    """The folder in which a page's commands run, with the bundles as in the repository."""
    shutil.copytree(supposed, tmp_path / "work")
    (tmp_path / "work" / "bundles").symlink_to(REPOSITORY / "bundles")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(words, monkeypatch):
    """Run a command in this process, a published model replaced by a tiny one. Return whether one was replaced."""
    program, *rest = words
    replaced = ()
    if program == "medpruner":
        loads = rest[0] in ("ask", "evaluate", "sweep") and "medpruner_phantom" not in rest
        replaced = TINY if loads and "--model" not in rest else ()
        main([*rest, *replaced])
    elif words[:3] == ["python", "-m", "monai.bundle"]:
        replaced = () if "bundles/medpruner_phantom" in words else TINY_BUNDLE
        monkeypatch.setattr(sys, "argv", [*words[2:], *replaced])
        runpy.run_module("monai.bundle", run_name="__main__")
    else:
        pytest.fail(f"the test cannot run {program}: mark the block with <!-- not run: REASON -->")
    return bool(replaced)


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_commands_of_a_page(page, folder, monkeypatch, capsys):
    (folder / "out").mkdir()
    if page.name in ("README.md", "how_to.md"):  # they look at an answer that was given above
        first = ["ask", "--bundle", "medpruner_phantom", "--image", "ct.nii.gz", "--question", "Which plane?"]
        main([*first, "--output_dir", "out"])
    for mark, text in runnable(page):
        replaced = [run(words, monkeypatch) for words in commands(text)]
        assert any(replaced) == mark.startswith("needs: "), text
    assert list((folder / "out").rglob("*.jsonl"))
    assert "status: failed" not in capsys.readouterr().out


def test_blocks_are_found():
    """Nearly all blocks run here; an unknown mark would be taken for none."""
    marks = [mark for page in PAGES for mark, _ in blocks(page)]
    assert sum(not mark or mark.startswith("needs: ") for mark in marks) > 15
    assert not [mark for mark in marks if mark and not re.fullmatch(f"{ELSEWHERE.pattern}|needs: .+", mark)]
    count = sum(page.read_text(encoding="utf-8").count("\n```bash\n") for page in PAGES)
    assert len(marks) == count


def test_commands_of_a_block():
    text = 'B=one\n# a comment\nmedpruner ask \\\n    --bundle $B --question "a b"  # more\n'
    assert commands(text) == [["medpruner", "ask", "--bundle", "one", "--question", "a b"]]
    assert BLOCK.findall("<!-- not run: needs a server -->\n```bash\nx\n```\n\n```bash\ny\n```\n") == [
        ("not run: needs a server", "x\n"),
        ("", "y\n"),
    ]
