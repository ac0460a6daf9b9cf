# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The folder of rows gives back what was written, once, and nothing else under its name; none of this needs vLLM."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from monai_medpruner.engines.vllm.pruned_request import PrunedRequest
from monai_medpruner.engines.vllm.row_folder import read_rows, row_file, write_rows
from monai_medpruner.errors import EngineError, OutputFolderError


@pytest.fixture
def request_of_two():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(count, 8, generator=generator).to(torch.bfloat16) for count in (3, 2)]
    positions = [torch.arange(3 * len(one)).reshape(-1, 3) for one in rows]
    return PrunedRequest([1, 9, 2, 9, 3], rows, positions, [9, 6], 9)


def read(folder, request, index, name=None):
    name = name or request.slice_names()[index]
    return read_rows(folder, name, request.positions[index], request.extents[index])


def test_written_once_and_read_back(request_of_two, tmp_path):
    names = write_rows(tmp_path, request_of_two)
    assert names == request_of_two.slice_names()
    files = sorted(tmp_path.rglob("*.*"))
    assert files == sorted(row_file(tmp_path, name) for name in names)
    times = [one.stat().st_mtime_ns for one in files]
    for index, rows in enumerate(request_of_two.rows):
        found = read(tmp_path, request_of_two, index)
        assert found.dtype == rows.dtype
        assert torch.equal(found, rows)
    assert write_rows(tmp_path, request_of_two) == names
    assert [one.stat().st_mtime_ns for one in sorted(tmp_path.rglob("*.*"))] == times
    row_file(tmp_path, names[0]).unlink()
    write_rows(tmp_path, request_of_two)
    assert torch.equal(read(tmp_path, request_of_two, 0), request_of_two.rows[0])


def test_many_writers(request_of_two, tmp_path):
    """Threads that write the same study at once leave whole files, and no parts."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: write_rows(tmp_path, request_of_two), range(64)))
    assert len([one for one in tmp_path.rglob("*.*") if one.is_file()]) == 2
    assert torch.equal(read(tmp_path, request_of_two, 1), request_of_two.rows[1])


def test_what_is_not_the_slice(request_of_two, tmp_path):
    first, second = write_rows(tmp_path, request_of_two)
    with pytest.raises(EngineError, match="not in the folder"):
        read(tmp_path, request_of_two, 0, "0" * 64)
    for name in ("../../etc/passwd", first.upper(), first[:-1], f"{first}\n"):
        with pytest.raises(EngineError, match="64 hexadecimal digits"):
            read(tmp_path, request_of_two, 0, name)
    shutil.copyfile(row_file(tmp_path, second), row_file(tmp_path, first))
    with pytest.raises(EngineError, match="does not hold what its name says"):
        read(tmp_path, request_of_two, 0)
    file = row_file(tmp_path, second)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(EngineError, match="does not hold what its name says"):
        read(tmp_path, request_of_two, 1)
    file.write_bytes(content[:-5])
    with pytest.raises(EngineError, match="cannot be read"):
        read(tmp_path, request_of_two, 1)


def test_no_folder(request_of_two, tmp_path):
    with pytest.raises(OutputFolderError, match="does not exist"):
        write_rows(tmp_path / "absent", request_of_two)
    (tmp_path / request_of_two.slice_names()[0][:2]).write_text("in the way")
    with pytest.raises(OutputFolderError, match="cannot write"):
        write_rows(tmp_path, request_of_two)
