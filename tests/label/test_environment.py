# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The pinned environment and the app's folder, tested without MONAI Label."""

from __future__ import annotations

import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from monai_medpruner.cli import main as command_line
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.label.app_folder import app_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 has no reader of TOML of its own")


@pytest.fixture
def pinned(repository):
    lines = (repository / "constraints-label.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_environment_pins_every_dependency(repository, pinned):
    """Those of the package and of the extra, with the server version that the app patches."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"] + project["optional-dependencies"]["label"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line
    server = (repository / "monai_medpruner" / "label" / "server.py").read_text()
    assert re.search(r'^_SERVER_VERSION = "(.*)"$', server, re.MULTILINE)[1] == pinned["monailabel"]
    assert "sam2" not in pinned


def test_app_folder(tmp_path, monkeypatch, capsys):
    """MONAI Label finds the app's class in main.py, and writes into the same folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command_line.main(["label_app"])
    folder = tmp_path / "monai_medpruner" / "label_app"
    assert capsys.readouterr().out == f"{folder}\n"
    assert [path.name for path in folder.iterdir()] == ["main.py"]
    (folder / "main.py").write_text("old")
    assert app_folder() == folder
    assert "import MedPrunerApp" in (folder / "main.py").read_text()


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputFolderError, match="cannot write the app's folder"):
        app_folder()
