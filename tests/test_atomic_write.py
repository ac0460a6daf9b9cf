# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Files that are whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from monai_medpruner.atomic_write import atomic_write


def test_replaces_a_file(tmp_path):
    file = tmp_path / "table.csv"
    atomic_write(file, b"first")
    atomic_write(file, b"second")
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_breaks_off_leaves_the_earlier_one(tmp_path, monkeypatch):
    file = tmp_path / "table.csv"
    atomic_write(file, b"first")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(file, b"second")
    assert file.read_bytes() == b"first"


def test_another_process_writes_the_same_file_meanwhile(tmp_path, monkeypatch):
    """It begins and ends between the writing of the part and its renaming."""
    file = tmp_path / "table.csv"
    code = (
        "import sys, pathlib, monai_medpruner.atomic_write as w; w.atomic_write(pathlib.Path(sys.argv[1]), b'theirs')"
    )
    monkeypatch.setattr(os, "fsync", lambda _: subprocess.run([sys.executable, "-c", code, str(file)], check=True))
    atomic_write(file, b"ours")
    assert file.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [file]
