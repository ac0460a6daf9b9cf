# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whatever a DICOM file does to the decoder, one volume fails by name, and the next one is read."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from monai.data import DataLoader, Dataset

from monai_medpruner.data import VolumeReader, decoder_process, dicom_decoding
from monai_medpruner.data.dicom_decoding import DicomDecoding
from monai_medpruner.errors import SettingsError, UnreadableVolumeError
from monai_medpruner.transforms import LoadVolumed

pytest.importorskip("pydicom")
from dicom_files import palette_without_tables, write_slice

#: a decoder that does what the name of a file says, and otherwise what the real one does with any file
PROGRAM = """
import sys, os, signal, time
del sys.path[0]
sys.path.insert(0, {folder!r})
import numpy as np
import dicom_decoder
sys.path.pop(0)

def read_header(path, tags):
    return {{"image": True, "sizes": [8, 6], "components": 1, "tags": {{
        "0020|000e": "1.2", "0020|0032": "0\\\\0\\\\" + os.path.basename(path).split("_")[0], "0008|0060": "CT",
        "0020|0037": "1\\\\0\\\\0\\\\0\\\\1\\\\0", "0028|0030": "1\\\\1", "0028|1052": "0", "0028|1053": "1"}}}}

def read_pixels(path, inverted_sum, pixels):
    name = os.path.basename(path)
    if "hang" in name:
        time.sleep(60)
    if "abort" in name:
        os.abort()
    if "killed" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "exit" in name:
        os._exit(3)
    if "memory" in name:
        np.ones(1 << 32, np.uint8)
    if "noise" in name:
        os.write(1, b"noise" * 100000)
    pixels[...] = np.arange(0, 96, 2).reshape(6, 8)

class Stub:
    def __getattr__(self, name):
        return self
    def __call__(self, *args, **kwargs):
        return self
    def __getitem__(self, name):
        return self

dicom_decoder.read_header, dicom_decoder.read_pixels, dicom_decoder._itk = read_header, read_pixels, Stub
dicom_decoder._serve()
"""
EVEN = np.arange(0, 96, 2).reshape(6, 8)


def decodes(process):
    """Whether a process is a decoder; False for one that has ended, as short-lived ones of libraries do."""
    try:
        return any("decoder" in part for part in process.cmdline())
    except psutil.Error:
        return False


def decoders():
    # not those of other children: a server that another test of this process started has its own
    return [i for i in psutil.Process().children() if decodes(i)]


@pytest.fixture(autouse=True)
def no_process_left():
    decoder_process._pool.close()
    before = set(os.listdir(tempfile.gettempdir()))
    yield
    assert len(decoders()) <= decoder_process._MAX_IDLE
    decoder_process._pool.close()
    assert decoders() == []
    assert not [i for i in set(os.listdir(tempfile.gettempdir())) - before if i.startswith("medpruner_")]
    assert not [i for i in threading.enumerate() if i.name == "DICOM decoder watch"]


@pytest.fixture
def stub_decoder(tmp_path, monkeypatch):
    """Replace ITK by a decoder that obeys the names of files."""
    program = tmp_path / "decoder_stub.py"
    program.write_text(PROGRAM.format(folder=str(decoder_process._PROGRAM.parent)))
    monkeypatch.setattr(decoder_process, "_PROGRAM", program)


def series(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        write_slice(folder / f"{index}_{name}.dcm", z=index)
    return folder


def check_read(reader, folder):
    voxels = reader.read(folder).voxels
    assert voxels.shape == (8, 6, len(list(folder.iterdir())))
    assert all(np.array_equal(voxels[..., i].T, EVEN) for i in range(voxels.shape[2]))


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("abort", "ended with SIGABRT: the file is damaged"),
        ("killed", "was killed, perhaps because memory ran out"),
        ("exit", "ended unexpectedly \\(exit status 3\\)"),
        ("hang", "took longer than 0.5 seconds and was stopped"),
        ("memory", "needs more than 0.5 GiB of memory"),
    ],
)
def test_one_volume_fails_by_name_and_the_next_is_read(tmp_path, stub_decoder, name, cause):
    reader = VolumeReader(decoding=DicomDecoding(file_seconds=0.5, memory_gib=0.5))
    bad, good = series(tmp_path / "bad", "a", "b", name, "c"), series(tmp_path / "good", "a", "b")
    check_read(reader, good)
    start = time.monotonic()
    with pytest.raises(UnreadableVolumeError, match=rf"^2_{name}\.dcm: .*{cause}"):
        reader.read(bad)
    assert time.monotonic() - start < 20
    check_read(reader, good)


def test_limit_for_the_series(tmp_path, stub_decoder):
    reader = VolumeReader(decoding=DicomDecoding(file_seconds=30, series_seconds=1))
    with pytest.raises(UnreadableVolumeError, match=r"^1_hang\.dcm: decoding the series took longer than 1 seconds"):
        reader.read(series(tmp_path / "s", "a", "hang"))


def test_what_libraries_print_is_no_reply(tmp_path, stub_decoder):
    check_read(VolumeReader(), series(tmp_path / "s", "noise", "noise"))


def test_killed_in_the_middle(tmp_path, stub_decoder):
    folder = series(tmp_path / "s", "a", "hang")
    stop = threading.Event()

    def kill():
        while not stop.wait(0.05):
            for child in decoders():
                child.kill()

    reader = VolumeReader()
    check_read(reader, series(tmp_path / "good", "a"))
    killer = threading.Timer(1.0, kill)
    killer.start()
    with pytest.raises(UnreadableVolumeError, match=r"1_hang\.dcm: the DICOM decoder was killed"):
        reader.read(folder)
    stop.set()
    killer.join()
    check_read(reader, tmp_path / "good")


def test_abort_by_a_color_palette_without_tables(tmp_path):
    """Case 01: GDCM throws what is no std::exception, and the process of the reader was lost."""
    for index in range(4):
        write_slice(tmp_path / f"{index}_a.dcm", palette_without_tables if index == 2 else None, z=index)
    with pytest.raises(UnreadableVolumeError, match=r"^2_a\.dcm: the DICOM decoder ended with SIGABRT.*PALETTE COLOR"):
        VolumeReader().read(tmp_path)
    (tmp_path / "2_a.dcm").unlink()
    check_read(VolumeReader(), tmp_path)


def test_both_ways_give_the_same_volume(tmp_path, write_series):
    written = write_series(tmp_path / "s")
    separate = VolumeReader().read(tmp_path / "s")
    here = VolumeReader(decoding=DicomDecoding(separate=False)).read(tmp_path / "s")
    assert np.array_equal(separate.voxels, here.voxels)
    assert np.array_equal(separate.voxels, written.stored.transpose(2, 1, 0) - np.float32(1024))
    assert separate.voxels.flags.writeable
    assert separate.voxels.flags.f_contiguous


def test_the_process_is_kept(tmp_path, stub_decoder):
    folder, reader = series(tmp_path / "s", "a", "b"), VolumeReader()
    check_read(reader, folder)
    first = [i.pid for i in decoders()]
    assert len(first) == 1
    check_read(pickle.loads(pickle.dumps(reader)), folder)
    assert [i.pid for i in decoders()] == first
    decoders()[0].kill()  # while idle
    check_read(reader, folder)


def test_two_processes_wait_after_a_failure(tmp_path, stub_decoder):
    """One for the next volume, and a spare should that one fail as well."""
    good, bad = series(tmp_path / "good", "a"), series(tmp_path / "bad", "abort")
    reader = VolumeReader()
    check_read(reader, good)
    assert len(decoders()) == 1
    seen = []
    for _ in range(3):
        with pytest.raises(UnreadableVolumeError):
            reader.read(bad)
        seen.append({i.pid for i in decoders()})
        assert len(seen[-1]) == 2
    assert all(len(before & after) == 1 for before, after in pairwise(seen))
    check_read(reader, good)
    assert {i.pid for i in decoders()} == seen[-1]


def test_no_process_when_switched_off(tmp_path):
    check_read(VolumeReader(decoding=DicomDecoding(separate=False)), series(tmp_path / "s", "a", "b"))
    assert decoders() == []


def test_threads(tmp_path, stub_decoder):
    good, bad = series(tmp_path / "good", "a", "b"), series(tmp_path / "bad", "a", "abort")
    reader = VolumeReader()

    def read(folder):
        try:
            check_read(reader, folder)
            return "read"
        except UnreadableVolumeError as error:
            return str(error).split(":")[0]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(read, [good, bad] * 8))
    assert found == ["read", "1_abort.dcm"] * 8


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers(tmp_path, method):
    folder = series(tmp_path / "s", "a", "b", "c")
    check_read(VolumeReader(), folder)  # a fork must not use the process of its parent
    mine = {i.pid for i in decoders()}
    data = Dataset([{"image": str(folder)}] * 4, LoadVolumed("image"))
    loader = DataLoader(data, num_workers=2, multiprocessing_context=method)
    for batch in loader:
        assert np.array_equal(batch["image"][0, 0, :, :, 1].numpy().T, EVEN)
    del loader
    deadline = time.monotonic() + 10
    while (left := {i.pid for i in decoders()}) != mine and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == mine
    check_read(VolumeReader(), folder)


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_no_process_outlives_its_parent(tmp_path, stub_decoder, end):
    folder = series(tmp_path / "s", "a", *(["hang"] if end == "kill" else []))
    script = (
        "import sys, os; from pathlib import Path\n"
        "from monai_medpruner.data import VolumeReader, decoder_process\n"
        "from monai_medpruner.data.dicom_decoding import DicomDecoding\n"
        f"decoder_process._PROGRAM = Path({str(decoder_process._PROGRAM)!r})\n"
        f"VolumeReader(decoding=DicomDecoding(file_seconds=1 if {end!r} == 'exit' else 2)).read({str(folder)!r})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    found: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while not found and parent.poll() is None and time.monotonic() < deadline:
        found = [i for i in psutil.Process(parent.pid).children() if decodes(i)]
        time.sleep(0.02)
    assert found
    if end == "kill":
        time.sleep(0.5)
        parent.send_signal(signal.SIGKILL)
    parent.wait(60)
    _, alive = psutil.wait_procs(found, timeout=15)
    assert alive == []


def test_temporary_file_where_there_is_no_file_in_memory(tmp_path, stub_decoder, monkeypatch):
    folder = series(tmp_path / "s", "a", "b")
    monkeypatch.setattr(dicom_decoding.sys, "platform", "darwin")
    check_read(VolumeReader(), folder)


def test_another_folder_when_one_is_full(tmp_path, monkeypatch):
    full, free = tmp_path / "full", tmp_path / "free"
    full.mkdir()
    free.mkdir()
    usage = dicom_decoding.shutil.disk_usage

    def disk_usage(folder):
        return usage(folder)._replace(free=usage(folder).free if str(folder) == str(free) else 0)

    monkeypatch.setattr(dicom_decoding.shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(dicom_decoding.tempfile, "gettempdir", lambda: str(full))
    monkeypatch.chdir(free)
    file, name = dicom_decoding._temporary_file(1000)
    os.close(file)
    assert Path(name).parent == free
    assert Path(name).stat().st_size == 1000
    monkeypatch.chdir(full)
    with pytest.raises(OSError, match="TMPDIR"):
        dicom_decoding._temporary_file(1000)


def test_decoder_that_cannot_start(tmp_path, monkeypatch):
    folder = series(tmp_path / "s", "a")
    (tmp_path / "broken_decoder.py").write_text("raise ImportError")
    monkeypatch.setattr(decoder_process, "_PROGRAM", tmp_path / "broken_decoder.py")
    with pytest.raises(UnreadableVolumeError, match="could not be started"):
        VolumeReader().read(folder)


@pytest.mark.parametrize(
    "wrong", [{"separate": 1}, {"file_seconds": 0}, {"series_seconds": "1"}, {"memory_gib": float("nan")}], ids=str
)
def test_settings_are_checked(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        DicomDecoding(**wrong)


def test_environment(monkeypatch):
    monkeypatch.setenv("MEDPRUNER_DICOM_SEPARATE", "0")
    monkeypatch.setenv("MEDPRUNER_DICOM_FILE_SECONDS", "5.5")
    assert VolumeReader().decoding == DicomDecoding(separate=False, file_seconds=5.5)
    assert VolumeReader(decoding=DicomDecoding()).decoding == DicomDecoding()
    for variable, value in (("SEPARATE", "no"), ("MEMORY_GIB", "2 GiB"), ("SERIES_SECONDS", "-1")):
        monkeypatch.setenv(f"MEDPRUNER_DICOM_{variable}", value)
        with pytest.raises(SettingsError, match=rf"(?i){variable}"):
            DicomDecoding.from_environment()
        monkeypatch.delenv(f"MEDPRUNER_DICOM_{variable}")
