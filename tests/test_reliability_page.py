# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of reliability says what its results say, and these are about the inputs that the tests read."""

from __future__ import annotations

import importlib
import json

import pytest


@pytest.fixture
def script(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "scripts")
    return importlib.import_module("reliability_page")


@pytest.fixture
def results(script):
    return json.loads(script.RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_the_results(script, capsys, tmp_path, monkeypatch):
    assert script.main(["--check"]) == 0
    monkeypatch.setattr(script, "PAGE", tmp_path / "reliability.md")
    script.PAGE.write_text("old", encoding="utf-8")
    assert script.main(["--check"]) == 1
    assert "is not up to date" in capsys.readouterr().err
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0


def test_the_results_are_those_that_the_tests_expect(repository, results, monkeypatch):
    """``tests/data/test_hostile_inputs.py`` asserts the same of every input."""
    pytest.importorskip("pydicom", minversion="3")
    monkeypatch.syspath_prepend(repository / "tests" / "data")
    inputs = importlib.import_module("hostile_inputs").INPUTS
    assert [(row["name"], row["format"], row["text"]) for row in results["rows"]] == [
        (one.name, one.format, one.text) for one in inputs
    ]
    for row, one in zip(results["rows"], inputs, strict=True):
        assert (row["ours"]["outcome"], row["ours"]["error"]) == (one.expected.outcome, one.expected.error), one.name
        assert one.expected.phrase in row["ours"]["message"], one.name


def test_nothing_is_wrong_and_every_volume_was_compared(script, results):
    assert len(results["rows"]) >= 60
    outcomes = {row["ours"]["outcome"] for row in results["rows"]}
    assert outcomes == {"right", "noted", "refused"}
    for row in results["rows"]:
        assert tuple(row["readers"]) == script.READERS[row["format"]]
        compared = row["ours"]["round_trip"]
        assert compared.startswith("equal to ") if row["ours"]["outcome"] != "refused" else not compared


def test_cells_of_a_row(script):
    ours = {"outcome": "noted", "error": "", "message": "a | b", "round_trip": "equal to nibabel"}
    readers = {"NibabelReader": "wrong without a word", "ITKReader": "error: RuntimeError", "SimpleITK": "right"}
    row = {"name": "x", "format": "NIfTI", "text": "an input", "readers": readers, "ours": ours}
    text = script.page({"versions": {"monai": "1"}, "rows": [row]})
    others = "**wrong without a word** | error, `RuntimeError` | right"
    assert f"| an input | {others} | right, with a note: a \\| b | equal to nibabel |\n" in text
    assert "| NIfTI: NibabelReader | 1 | 0 | 1 | 0 | 0 |" in text
    assert "| NIfTI: ITKReader | 1 | 0 | 0 | 1 | 0 |" in text
    assert "| NIfTI: this package | 1 | 1, 1 of them with a note | 0 | 0 | 0 |" in text


def test_a_process_that_a_file_ends_is_replaced(script, tmp_path, monkeypatch):
    """With a child that ends, or waits, at the paths of those names."""
    child = tmp_path / "other_readers.py"
    child.write_text(
        "import json, os, sys, time\n"
        "print(json.dumps({'ready': True}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    path = json.loads(line)['path']\n"
        "    os.abort() if path == 'abort' else time.sleep(60) if path == 'wait' else None\n"
        "    print(json.dumps({'error': 'ValueError', 'warnings': 0}), flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(script, "__file__", str(tmp_path / "reliability_page.py"))
    reader = script.Child(tmp_path)
    found = [reader.read("x", path, seconds)[0] for path, seconds in (("abort", 30), ("wait", 1), ("other", 30))]
    reader.end()
    assert found == ["ends the process (SIGABRT)", "hangs", "error: ValueError"]
