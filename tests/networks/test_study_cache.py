# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Encoded studies as files, and the cache of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import pytest
import torch
from filelock import Timeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_medpruner.errors import EncodedStudyError, OutputFolderError, SettingsError
from monai_medpruner.networks import EncodedStudy, StudyCache, StudyKey, cache_folder, open_study_cache, study_cache
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.results import SliceRecord, StudyRecord, VolumeGeometry

KEY = StudyKey("files:ab12", "[]", "{}", "null", "float32", "null", "{}")
ROWS = 4
# the tensors of a study of ROWS rows: tokens and side rows, 8 float32 each
BYTES = 2 * ROWS * 8 * 4


def made(key=KEY, rows=ROWS, seed=0, dtype=torch.float32, layers=1, image="/data/doe_jane/ct.nii"):
    """A study of one token a slice."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.rand(rows, 8, generator=generator).to(dtype)
    side = [torch.rand(rows, 8, generator=generator).to(dtype) for _ in range(layers)]
    geometry = VolumeGeometry((16, 16, rows + 1), torch.eye(4) * 1.5, torch.eye(4), tuple(map(float, range(rows + 1))))
    kept = torch.tensor([True, False])
    merged_into = torch.tensor([0, -1])
    slices = tuple(
        SliceRecord((1, 2), kept, ~kept & kept, merged_into, torch.rand(2, generator=generator)) for _ in range(rows)
    )
    record = StudyRecord(
        "ab12", rows + 1, tuple(range(rows)), slices, geometry, image=image, source="NIfTI", notes=("a note",),
        settings={"model": {"a": 1}}, seconds={"load": 1.0, "encode": 2.0},
    )  # fmt: skip
    return EncodedStudy(key, record, tokens.split(1), tuple(one.split(1) for one in side), preserve_position_ids=True)


def numbered(number):
    return replace(KEY, volume=f"files:{number}")


def same(one, other):
    assert one.key == other.key
    assert one.preserve_position_ids == other.preserve_position_ids
    assert len(one.tokens) == len(other.tokens)
    assert len(one.deepstack_features) == len(other.deepstack_features)
    for rows, others in zip(
        (one.tokens, *one.deepstack_features), (other.tokens, *other.deepstack_features), strict=True
    ):
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(rows, others, strict=True))
    tensors, facts = one.record.packed()
    others, other_facts = other.record.packed()
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    apart = {"seconds", "image", "notes"}
    assert {name: value for name, value in facts.items() if name not in apart} == {
        name: value for name, value in other_facts.items() if name not in apart
    }


@given(
    rows=st.integers(1, 6),
    seed=st.integers(0, 2**16),
    layers=st.integers(0, 12),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_gives_the_study_back(tmp_path, rows, seed, layers, dtype):
    """More than ten layers too, whose names do not sort by their numbers."""
    study = made(rows=rows, seed=seed, layers=layers, dtype=dtype)
    found = EncodedStudy.load(study.save(tmp_path / "study.safetensors"))
    same(study, found)
    assert found.record.seconds == study.record.seconds
    assert found.record.image == study.record.image
    assert found.record.notes == study.record.notes


def test_a_study_that_waits_for_its_question(tmp_path):
    waiting = replace(made(), pending=(NucleusPruner(), pending_slices()))
    with pytest.raises(SettingsError, match="question"):
        waiting.save(tmp_path / "study.safetensors")
    cache = StudyCache(tmp_path / "cache")
    cache.put(waiting)
    assert cache.get(KEY) is waiting
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def pending_slices():
    from monai_medpruner.networks.families import EncodedSlices
    from monai_medpruner.networks.scored_slices import ScoredSlices

    return ScoredSlices(EncodedSlices([torch.zeros(1000, 8)], [], []), [(1, 1000)], 1)


def test_what_waits_counts_in_memory():
    waiting = replace(made(), pending=(NucleusPruner(), pending_slices()))
    assert waiting.tensor_bytes == made().tensor_bytes + 1000 * 8 * 4
    cache = StudyCache(memory_bytes=waiting.tensor_bytes - 1)
    cache.put(waiting)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("part", [one.name for one in fields(StudyKey)])
def test_every_part_of_the_key_counts(tmp_path, part):
    cache = StudyCache(tmp_path)
    cache.put(made())
    other = replace(KEY, **{part: "other"})
    for one in (cache, StudyCache(tmp_path)):
        assert one.get(KEY) is not None
        assert one.get(other) is None
    assert other.digest != KEY.digest


@given(
    first=st.lists(st.text(max_size=4), min_size=7, max_size=7),
    second=st.lists(st.text(max_size=4), min_size=7, max_size=7),
    questions=st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3)),
)
def test_keys_are_equal_where_their_parts_are(first, second, questions):
    one, other = StudyKey(*first, questions[0]), StudyKey(*second, questions[1])
    assert (one.digest == other.digest) == (one == other)


def test_questions_have_keys_of_their_own():
    assert len({KEY, KEY.for_question("a?"), KEY.for_question("b?")}) == 3
    assert KEY.for_question("a?").for_question("b?") == KEY.for_question("b?")


def test_memory_and_disk_give_the_same_study(tmp_path):
    study, cache = made(), StudyCache(tmp_path)
    cache.put(study)
    assert cache.get(KEY) is study
    cache.forget_memory()
    found = cache.get(KEY)
    same(study, found)
    assert cache.get(KEY) is found
    assert found.record.seconds == {}
    assert found.record.notes == ("a note", study_cache.EARLIER_RUN)
    assert found.record.image == ""


def test_files_hold_no_path(tmp_path):
    StudyCache(tmp_path / "cache").put(made())
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    assert file.name == f"{KEY.digest}.safetensors"
    assert b"doe" not in file.read_bytes()
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_noticed(tmp_path, caplog, data):
    cache = StudyCache(tmp_path)
    cache.put(made())
    path = tmp_path / f"{KEY.digest}.safetensors"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    unusable(path, caplog)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_short(tmp_path, caplog, share):
    StudyCache(tmp_path).put(made())
    path = tmp_path / f"{KEY.digest}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    unusable(path, caplog)


def unusable(path, caplog):
    """The file counts as absent, with one warning, and a new one takes its place."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert StudyCache(path.parent).get(KEY) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "encoded again" in caplog.text
    with pytest.raises(EncodedStudyError):
        EncodedStudy.load(path)
    StudyCache(path.parent).put(made())
    assert StudyCache(path.parent).get(KEY) is not None


@pytest.mark.parametrize("kind", ["text", "empty", "record", "more bytes", "another study", "later format", "folder"])
def test_foreign_files(tmp_path, caplog, kind, monkeypatch):
    path = tmp_path / f"{KEY.digest}.safetensors"
    study = made()
    if kind == "text":
        path.write_text("not a study")
    elif kind == "empty":
        path.touch()
    elif kind == "record":
        study.record.save(path)
    elif kind == "more bytes":
        study.save(path)
        path.write_bytes(path.read_bytes() + b"\0")
    elif kind == "another study":
        made(key=numbered(7)).save(path)
    elif kind == "later format":
        monkeypatch.setattr("monai_medpruner.networks.encoded_study._FORMAT", "monai_medpruner.EncodedStudy/99")
        study.save(path)
        monkeypatch.undo()
    else:
        path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert StudyCache(tmp_path).get(KEY) is None
    assert len(caplog.records) == 1
    # a folder cannot be replaced: the study is kept in memory, with a second warning
    cache = StudyCache(tmp_path)
    cache.put(study)
    assert cache.get(KEY) is study
    assert (StudyCache(tmp_path).get(KEY) is None) == (kind == "folder")


def test_memory_forgets_the_study_used_least_recently():
    cache = StudyCache(memory_bytes=2 * BYTES)
    for number in range(3):
        cache.put(made(numbered(number)))
        cache.get(numbered(0))
    assert cache.get(numbered(1)) is None
    assert cache.get(numbered(0)) is not None
    assert (cache.memory_count, cache.memory_size) == (2, cache.memory_bytes)
    cache.put(made(numbered(9), rows=9))
    assert cache.get(numbered(9)) is None
    assert cache.memory_count == 2


def test_the_disk_forgets_the_study_used_least_recently(tmp_path):
    made().save(tmp_path / "one")
    size = (tmp_path / "one").stat().st_size
    folder = tmp_path / "cache"
    cache = StudyCache(folder, disk_bytes=int(3.5 * size), memory_bytes=0)
    for number in range(3):
        cache.put(made(numbered(number)))
    assert cache.get(numbered(0)) is not None
    for number in (3, 4):
        cache.put(made(numbered(number)))
        assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= cache.files.size_bytes
    assert [number for number in range(5) if cache.get(numbered(number))] == [0, 3, 4]
    cache.put(made(numbered(9), rows=200))
    assert [number for number in (0, 3, 4, 9) if cache.get(numbered(number))] == [0, 3, 4]
    # a smaller bound holds from the next study on
    StudyCache(folder, disk_bytes=size // 2, memory_bytes=0).put(made(numbered(5)))
    assert not list(folder.glob("*.safetensors"))


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), limit=st.integers(0, 60_000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bounds_hold(tmp_path_factory, sizes, limit):
    folder = tmp_path_factory.mktemp("cache")
    cache = StudyCache(folder, disk_bytes=limit, memory_bytes=limit // 4)
    for number, rows in enumerate(sizes):
        cache.put(made(numbered(number), rows=rows))
        assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= limit
        assert cache.memory_size <= limit // 4


def test_other_files_stay(tmp_path):
    names = ["notes.txt", "x.safetensors", f"{'a' * 63}.safetensors", f"{'A' * 64}.safetensors", "a.1.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"x" * 1000)
    left = tmp_path / f"{'b' * 64}.safetensors.77.part"
    left.write_bytes(b"a process was killed")
    StudyCache(tmp_path, disk_bytes=0).put(made())
    assert all((tmp_path / name).exists() for name in names)
    assert not left.exists()


def test_a_folder_that_cannot_be_written(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OutputFolderError, match="cache folder"):
        StudyCache(tmp_path / "file" / "below")
    for error in (OSError(28, "No space left on device"), Timeout("lock")):
        cache = StudyCache(tmp_path / "cache")

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(EncodedStudy, "save", fail)
        caplog.clear()
        cache.put(made())
        assert "not written" in caplog.text
        assert cache.get(KEY) is not None


def no_warning(record):
    raise AssertionError(record.getMessage())


def write_and_read(folder, limit, process):
    """Put and get the same few studies, as several runs at once would; every study found is whole."""
    cache = StudyCache(folder, disk_bytes=limit, memory_bytes=0)
    found = 0
    logging.getLogger(cache_folder.__name__).addFilter(no_warning)
    for turn in range(30):
        number = (turn * 7 + process) % 5
        cache.put(made(numbered(number), rows=50 + number, seed=number))
        study = cache.get(numbered((number + 1) % 5))
        if study is not None:
            same(study, made(numbered((number + 1) % 5), rows=50 + (number + 1) % 5, seed=(number + 1) % 5))
            found += 1
    return found


def test_processes_share_a_folder(tmp_path):
    made(rows=55).save(tmp_path / "one")
    limit = int(3.5 * (tmp_path / "one").stat().st_size)
    folder = tmp_path / "cache"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(write_and_read, [(folder, limit, process) for process in range(3)])
    assert all(found)
    files = list(folder.glob("*"))
    assert not [path for path in files if path.suffix == ".part"]
    kept = [path for path in files if path.suffix == ".safetensors"]
    assert 0 < sum(path.stat().st_size for path in kept) <= limit
    assert all(EncodedStudy.load(path).key.digest == path.stem for path in kept)


def test_threads_share_a_folder(tmp_path):
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda process: write_and_read(tmp_path, 10**6, process), range(4)))
    finally:
        logging.getLogger(cache_folder.__name__).removeFilter(no_warning)
    assert all(found)
    assert len(list(tmp_path.glob("*.safetensors"))) == 5


def test_a_folder_that_can_be_read_alone(tmp_path, monkeypatch):
    """Another user's folder serves as well; only the order of use is not kept."""
    StudyCache(tmp_path).put(made())

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    same(StudyCache(tmp_path).get(KEY), made())


def test_the_cache_of_a_configuration(tmp_path):
    assert open_study_cache(None, 10) is None
    cache = open_study_cache(str(tmp_path / "a" / "b"), 0.5)
    assert (cache.files.path, cache.files.size_bytes) == (tmp_path / "a" / "b", 500_000_000)
    for size in (-1, "10", True, float("nan")):
        with pytest.raises(SettingsError, match="GB"):
            open_study_cache(tmp_path, size)
