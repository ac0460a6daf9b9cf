# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The notebooks run from their first cell to their last."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

from monai_medpruner.testing import save_tiny_checkpoint

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
#: notebook -> texts that it prints
PRINTED = {
    "01_first_question": ["tokens"],
    "02_compose_into_your_workflow": ["accuracy"],
    "03_choose_a_budget": ["preset fast", "random tokens", " of 4 ", "voxels in selected tokens"],
    "04_your_own_pruner": ["refused: keep_ratio must lie in (0, 1], got 2", "change "],
    "05_real_weights": ["kept: "],
    "06_serve_with_vllm": ["equal\n"],
}
#: variable of the fifth notebook -> model type that stands for a published model
STAND_INS = {
    "MEDPRUNER_MEDGEMMA": "gemma3",
    "MEDPRUNER_QWEN3VL": "qwen3_vl",
    "MEDPRUNER_HULUMED": "video_llama_3",
}


def cells(path, kind):
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """Return a function: a notebook -> what it prints."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("MEDPRUNER_REPOSITORY", str(repository))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def notebook(path):
        script = tmp_path / "notebook.py"
        script.write_text("\n".join(cells(path, "code")), encoding="utf-8")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(script), run_name="__main__")  # as in Jupyter, so that its classes can be pickled
        return printed.getvalue()

    return notebook


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == list(PRINTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, run, tmp_path, monkeypatch):
    if path.stem == "06_serve_with_vllm" and find_spec("vllm") is None:
        with pytest.raises(SystemExit, match="vLLM is not installed here"):
            run(path)
        pytest.skip("needs vLLM, which has an environment of its own: scripts/check_vllm --full runs it there")
    if path.stem == "05_real_weights":
        for name, model_type in STAND_INS.items():
            monkeypatch.setenv(name, str(save_tiny_checkpoint(model_type, tmp_path / name)))
    printed = run(path)
    for text in PRINTED[path.stem]:
        assert text in printed
    if path.stem == "01_first_question":
        assert "(truth: axial)" in printed or "(truth: coronal)" in printed
    if path.stem == "05_real_weights":
        assert "no weights here" not in printed
        assert printed.count("kept: ") == 4


def test_weights_that_are_not_there(run, tmp_path, monkeypatch):
    """The fifth notebook names every model that is missing, and goes on."""
    for name in STAND_INS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    (path,) = (path for path in NOTEBOOKS if path.stem == "05_real_weights")
    printed = run(path)
    assert printed.count("no weights here") == 4
    assert all(name in printed for name in STAND_INS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_a_run(path):
    """Every cell was executed, in order, without an error."""
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
