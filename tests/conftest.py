# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

# tiny tensors: threads cost more than they bring, and workers share the cores
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(autouse=True)
def _level_of_the_package():
    """A command that is called in a test may set the level of the package's messages; the next test has its own."""
    package = logging.getLogger("monai_medpruner")
    before = package.level
    yield
    package.setLevel(before)


def _shared(kind: str, name: str) -> Path:
    path = SHARED / kind / name
    if not path.exists():
        pytest.skip(f"needs shared/{kind}/{name} beside the repository, which is absent here")
    return path


@pytest.fixture(scope="session")
def shared_data():
    """Return a function: name below ``shared/data`` -> path; skips the test where it is absent."""
    return lambda name: _shared("data", name)


@pytest.fixture(scope="session")
def shared_tokenizer(tmp_path_factory):
    """Return a function: model type -> folder of its real tokenizer, unpacked; skips the test where it is absent."""
    unpacked = {}

    def unpack(name):
        if name not in unpacked:
            archive, folder = _shared("tokenizers", f"{name}.tar.gz"), tmp_path_factory.mktemp("tokenizers")
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
            unpacked[name] = folder / name
        return unpacked[name]

    return unpack


@pytest.fixture
def shared_case(tmp_path):
    """Return a function: name of a generator in ``shared/cases``, its options -> folder with the files it wrote."""

    def generate(name, *options):
        script, folder = _shared("cases", name), tmp_path / "case"
        if "pydicom" in script.read_text(encoding="utf-8") and version("pydicom").startswith("2."):
            pytest.skip("the generator needs pydicom 3, and MONAI Label's environment has pydicom 2")
        subprocess.run([sys.executable, str(script), str(folder), *options], check=True, timeout=120)
        return folder

    return generate


@pytest.fixture(scope="session")
def shared_oracle():
    """Return a function: name below ``shared/oracles`` -> path; skips the test where it is absent."""
    return lambda name: _shared("oracles", name)
