# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The notebooks run from their first cell to their last."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))


def cells(path, kind):
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == ["01_first_question.ipynb", "02_compose_into_your_workflow.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("MEDPRUNER_REPOSITORY", str(repository))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(cells(path, "code")), encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(script))
    if path.stem == "01_first_question":
        assert "tokens" in printed.getvalue()
        assert "(truth: axial)" in printed.getvalue() or "(truth: coronal)" in printed.getvalue()
    else:
        assert "accuracy" in printed.getvalue()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_a_run(path):
    """Every cell was executed, in order, without an error."""
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
