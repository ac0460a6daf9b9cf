# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The command line."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from monai_medpruner import __version__
from monai_medpruner.cli import main as command_line
from monai_medpruner.networks import convert_hulumed as converter


def run(*words, code=None):
    command = ["-c", code] if code else ["-m", "monai_medpruner"]
    return subprocess.run([sys.executable, *command, *words], capture_output=True, text=True)


def test_help_names_every_command():
    result = run("--help")
    assert result.returncode == 0
    for name, command in command_line.COMMANDS.items():
        assert name in result.stdout
        assert command.SUMMARY.split()[0] in result.stdout


def test_help_of_a_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        command_line.main(["convert_hulumed", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "source" in text
    assert "destination" in text


def test_every_command_has_the_same_shape():
    for name, command in command_line.COMMANDS.items():
        assert command.__name__ == f"monai_medpruner.cli.{name.replace('-', '_')}"
        assert command.SUMMARY.endswith(".")
        assert list(inspect.signature(command.add_arguments).parameters) == ["parser"]
        assert list(inspect.signature(command.run).parameters) == ["arguments"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in command_line.COMMANDS)])
def test_help_loads_no_model_library(words):
    code = (
        "import sys\nfrom monai_medpruner.cli.main import main\n"
        f"try:\n    main({words})\nfinally:\n    sys.exit(any(n in sys.modules for n in ('torch', 'monai', 'numpy')))"
    )
    assert run(code=code).returncode == 0


def test_version():
    result = run("--version")
    assert result.stdout == f"medpruner {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no_such_command"],
        ["convert_hulumed"],
        ["convert_hulumed", "one"],
        ["score", "lines", "--no_such_option"],
        ["ask", "--imag", "x"],
    ],
)
def test_wrong_arguments(words, capsys):
    with pytest.raises(SystemExit) as exit_:
        command_line.main(words)
    assert exit_.value.code == 2
    assert "usage: medpruner" in capsys.readouterr().err


def test_convert_hulumed_gets_its_folders(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(converter, "convert_hulumed", lambda *folders: calls.append(folders))
    command_line.main(["convert_hulumed", str(tmp_path / "a"), str(tmp_path / "b")])
    assert calls == [(tmp_path / "a", tmp_path / "b")]


def test_errors_of_the_package_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        command_line.main(["convert_hulumed", str(tmp_path / "none"), str(tmp_path / "new")])
    assert exit_.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("medpruner convert_hulumed: error: there is no folder")
    assert text.count("\n") == 1


def test_other_errors_are_not_hidden(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(converter, "convert_hulumed", fail)
    with pytest.raises(ZeroDivisionError):
        command_line.main(["convert_hulumed", "a", "b"])


@pytest.fixture
def runs(tmp_path):
    """Two runs on the same two closed items: one right, one right and one wrong."""
    paths = []
    for name, answers in (("first", "AB"), ("second", "AA")):
        lines = [
            {"id": str(index), "question": "?", "answer": text, "reference": "Liver", "reference_choice": right}
            | {"choices": {"A": "Liver", "B": "Lung"}, "type": "3"}
            for index, (text, right) in enumerate(zip(answers, "AB", strict=True))
        ]
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [str(path) for path in paths]


def test_score(runs, tmp_path, capsys):
    for path, accuracy in zip(runs, (100, 50), strict=True):
        command_line.main(["score", path, "--protocol", "m3d-official", "--output", str(tmp_path / "scores.json")])
        assert json.loads(capsys.readouterr().out)["accuracy"] == accuracy
        assert json.loads((tmp_path / "scores.json").read_text())["accuracy"] == accuracy


def test_compare(runs, capsys):
    command_line.main(["compare", *runs])
    result = json.loads(capsys.readouterr().out)
    assert result["first"]["items"] == result["second"]["items"] == 2
    assert result["micro"]["accuracy"]["difference"] == -50
    with pytest.raises(SystemExit):
        command_line.main(["compare", *runs, "--protocol", "none such"])
    assert "none such" in capsys.readouterr().err
