# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Files that are whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from monai_medpruner.whole_file import write_whole


def test_replaces_a_file(tmp_path):
    file = tmp_path / "table.csv"
    write_whole(file, b"first")
    write_whole(file, b"second")
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_breaks_off_leaves_the_earlier_one(tmp_path, monkeypatch):
    file = tmp_path / "table.csv"
    write_whole(file, b"first")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"second")
    assert file.read_bytes() == b"first"


def test_another_process_writes_the_same_file_meanwhile(tmp_path, monkeypatch):
    """It begins and ends between the writing of the part and its renaming."""
    file = tmp_path / "table.csv"
    code = "import sys, pathlib, monai_medpruner.whole_file as w; w.write_whole(pathlib.Path(sys.argv[1]), b'theirs')"
    monkeypatch.setattr(os, "fsync", lambda _: subprocess.run([sys.executable, "-c", code, str(file)], check=True))
    write_whole(file, b"ours")
    assert file.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [file]
