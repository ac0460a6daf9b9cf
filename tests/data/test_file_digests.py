# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Hashes of a volume's files."""

from __future__ import annotations

import os
import shutil

import pytest

from monai_medpruner.data import file_digests
from monai_medpruner.data.file_digests import FileDigests, file_digest


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for name, content in (("2.dcm", b"two"), ("1.dcm", b"one"), ("10.dcm", b"ten")):
        (folder / name).write_bytes(content)
    return folder


def settle(path):
    """Let a file look as if it had not changed for an hour."""
    for one in [path, *path.iterdir()] if path.is_dir() else [path]:
        os.utime(one, (one.stat().st_atime - 3600, one.stat().st_mtime - 3600))


@pytest.mark.parametrize("name", ["b.nii.gz", "C.NII.GZ", "b.v2.nii.gz"])
def test_a_file_is_its_bytes_and_its_format(tmp_path, name):
    one, other = tmp_path / "a.nii.gz", tmp_path / name
    one.write_bytes(b"voxels")
    other.write_bytes(b"voxels")
    assert file_digest(one) == file_digest(str(other))
    assert len(file_digest(one)) == 64
    other.write_bytes(b"voxelz")
    assert file_digest(one) != file_digest(other)


@pytest.mark.parametrize("name", ["a.npy", "a.nii", "a", "a.gz"])
def test_another_suffix_is_another_volume(tmp_path, name):
    for path in (tmp_path / "a.nii.gz", tmp_path / name):
        path.write_bytes(b"voxels")
    assert file_digest(tmp_path / "a.nii.gz") != file_digest(tmp_path / name)


def test_a_folder_is_its_files_wherever_it_lies(folder, tmp_path):
    copied = tmp_path / "other"
    shutil.copytree(folder, copied)
    assert file_digest(folder) == file_digest(copied)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "1.dcm").write_bytes(b"One"),
        lambda folder: (folder / "1.dcm").unlink(),
        lambda folder: (folder / "3.dcm").write_bytes(b""),
        lambda folder: (folder / "1.dcm").rename(folder / "11.dcm"),
        lambda folder: (folder / "sub").mkdir(),
        lambda folder: [(folder / "1.dcm").write_bytes(b"two"), (folder / "2.dcm").write_bytes(b"one")],
    ],
    ids=["byte", "file less", "file more", "renamed", "subfolder", "swapped"],
)
def test_whatever_the_reader_could_see_counts(folder, change):
    before = file_digest(folder)
    change(folder)
    assert file_digest(folder) != before


def test_files_that_stay_are_read_once(folder, monkeypatch):
    settle(folder)
    digests, calls = FileDigests(), []
    monkeypatch.setattr(file_digests, "file_digest", lambda path: calls.append(path) or file_digest(path))
    # times of a status change cannot be set
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", -1.0)
    assert digests(folder) == digests(str(folder)) == file_digest(folder)
    assert len(calls) == 1
    (folder / "1.dcm").write_bytes(b"1ne")
    assert digests(folder) == file_digest(folder)
    assert len(calls) == 2


def test_a_file_that_just_changed_is_read_again(folder, monkeypatch):
    """Two changes within one tick of the clock leave the same times."""
    digests, status = FileDigests(), (folder / "1.dcm").stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    monkeypatch.setattr(file_digests, "_facts", lambda place: (("1.dcm", 0, 3, *times),))
    before = digests(folder)
    (folder / "1.dcm").write_bytes(b"eno")
    assert digests(folder) != before


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", -1.0)
    digests = FileDigests(limit=2)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
        digests(tmp_path / name)
    assert len(digests._known) == 2


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileDigests()(tmp_path / "absent.nii")


def dicom_file(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + content)
    return path


def test_files_in_subfolders_count_where_the_reader_searches_them(tmp_path):
    """The top folder of a CD, and the directory file in it; a cache must not return another study's tokens."""
    directory = dicom_file(tmp_path / "DICOMDIR")
    below = dicom_file(tmp_path / "DICOM" / "A" / "1", b"one")
    digests = FileDigests()
    first = {path: (file_digest(path), digests(path)) for path in (tmp_path, directory)}
    assert len({one for pair in first.values() for one in pair}) == 1
    dicom_file(below, b"two")
    for path, (digest, remembered) in first.items():
        assert file_digest(path) != digest
        assert digests(path) != remembered
    changed = file_digest(directory)
    dicom_file(tmp_path / "DICOM" / "A" / "2")
    assert file_digest(directory) != changed
    assert digests(directory) == file_digest(directory)


def test_files_in_subfolders_do_not_count_where_the_folder_has_images(tmp_path):
    dicom_file(tmp_path / "1.dcm")
    below = dicom_file(tmp_path / "other" / "1.dcm")
    digest = file_digest(tmp_path)
    dicom_file(below, b"changed")
    assert file_digest(tmp_path) == digest
