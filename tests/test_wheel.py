# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a wheel holds that is built from the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def names(repository, tmp_path_factory):
    """The paths of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    # from a copy: the build leaves files beside its sources
    source = folder / "source"
    for name in ("monai_medpruner", "bundles"):
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_bundles_and_settings_are_in_it(repository, names):
    for folder in (path for path in (repository / "bundles").iterdir() if path.is_dir()):
        for name in (
            "configs/inference.json",
            "configs/metadata.json",
            "configs/sweep.json",
            "docs/README.md",
            "LICENSE",
        ):
            assert f"monai_medpruner/bundle_files/{folder.name}/{name}" in names
    assert "monai_medpruner/bundle_files/medpruner_phantom/models/gemma3/model.safetensors" in names
    assert "monai_medpruner/configs/settings.json" in names
    assert {f"monai_medpruner/report/assets/report.{kind}" for kind in ("css", "js")} <= names


def test_every_module_is_in_it(repository, names):
    modules = {path.relative_to(repository).as_posix() for path in (repository / "monai_medpruner").rglob("*.py")}
    assert modules <= names


def test_the_command_is_installed(names):
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
