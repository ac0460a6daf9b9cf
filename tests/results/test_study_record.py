# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Study records and answers: saving, loading, summaries."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from study_records import study_record

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results import Answer, StudyAnswers, StudyRecord


@pytest.mark.parametrize("importance", [True, False])
@pytest.mark.parametrize("distances", [True, False])
def test_record_round_trip(tmp_path, importance, distances):
    record = study_record(importance, distances)
    again = StudyRecord.load(record.save(tmp_path / "ab12.safetensors"))
    plain = {"slices", "geometry", "slice_distances"}
    for field in dataclasses.fields(StudyRecord):
        if field.name not in plain:
            assert getattr(again, field.name) == getattr(record, field.name), field.name
    for one, other in zip(again.slices, record.slices, strict=True):
        assert one.grid == other.grid
        for name in ("primary", "contextual", "merged_into"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert (one.importance is None) is not importance
        assert not importance or torch.equal(one.importance, other.importance)
    for name in ("affine", "original_affine"):
        assert torch.equal(getattr(again.geometry, name), getattr(record.geometry, name))
    for name in ("shape", "slice_positions_mm", "crop"):
        assert getattr(again.geometry, name) == getattr(record.geometry, name)
    if distances:
        assert math.isnan(again.slice_distances[0])
        assert again.slice_distances[1:] == record.slice_distances[1:]
    else:
        assert again.slice_distances is None
    assert again.summary() == record.summary()


def test_summary_counts():
    summary = study_record().summary()
    assert summary["slices"] == {"total": 5, "kept": 2, "indices": [1, 4], "largest_gap_mm": 9.0}
    assert summary["tokens"] == {"unpruned": 30, "kept": 8, "per_slice": [4, 4]}
    assert summary["retention"] == {"slices": 0.4, "tokens_per_kept_slice": 0.666667, "overall": 0.266667}


@pytest.mark.parametrize(
    ("positions", "kept", "gap"),
    [
        ((0.0, 3.0, 6.5, 9.0, 12.0), (0, 2, 4), (6.5, 0, 2)),
        ((0.0, 3.0, 6.5, 9.0, 12.0), (3,), (9.0, 0, 3)),  # the ends of the volume count
        ((0.0, 3.0, 6.5, 9.0, 12.0), (0, 1), (9.0, 1, 4)),
        ((5.0, 4.0, 2.5, -9.0, -9.5), (0, 1, 2, 4), (12.0, 2, 4)),
        ((0.0, 3.0, 6.5, 9.0, 12.0), (0, 1, 2, 3, 4), (3.5, 1, 2)),
        ((7.0,), (0,), (0.0, 0, 0)),
    ],
)
def test_the_largest_gap(positions, kept, gap):
    geometry = dataclasses.replace(study_record().geometry, slice_positions_mm=positions)
    record = study_record(geometry=geometry, slice_indices=kept, total_slices=len(positions))
    assert record.largest_gap == gap
    assert record.largest_gap_mm == record.summary()["slices"]["largest_gap_mm"] == gap[0]
    note = "No slice between 2 and 4 was read, a stretch of 12.0 mm: a smaller finding there can be missed."
    assert record.summary()["notes"][1:] == ([note] if gap[0] > 10 else [])


@pytest.mark.parametrize("source", ["npy", "images", None])
def test_no_gap_without_geometry(source):
    record = study_record(source=source)
    if source is None:
        record = study_record(geometry=dataclasses.replace(record.geometry, slice_positions_mm=()))
    assert record.largest_gap_mm is None
    assert record.summary()["slices"]["largest_gap_mm"] is None


def test_cropped_slices_are_counted_whole(tmp_path):
    record = study_record(unpruned_tokens_per_slice=9)
    assert record.summary()["tokens"]["unpruned"] == 45
    assert record.retention == {"slices": 0.4, "tokens_per_kept_slice": 8 / 18, "overall": 8 / 45}
    again = StudyRecord.load(record.save(tmp_path / "ab12.safetensors"))
    assert again.unpruned_tokens_per_slice == 9


def test_values_cannot_be_changed():
    record = study_record()
    for value in (record, record.geometry, record.slices[0], Answer("Yes."), StudyAnswers(record, (), ())):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)


def test_damaged_and_other_files(tmp_path):
    path = study_record().save(tmp_path / "one.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(OutputFolderError, match="cannot be read"):
        StudyRecord.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(OutputFolderError, match="it holds no hash of its content"):
        StudyRecord.load(path)
    with pytest.raises(OutputFolderError, match="cannot be read"):
        StudyRecord.load(tmp_path / "absent.safetensors")


def test_an_interrupted_write_leaves_the_earlier_record(tmp_path, monkeypatch):
    path = study_record().save(tmp_path / "one.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        study_record(total_slices=7).save(path)
    assert path.read_bytes() == before


def test_answer_round_trip(tmp_path):
    answer = Answer("Größe: 3 cm.\u2028", {"prefill": 0.5, "decode": 1.5}, 120, 100, 7)
    assert Answer.load(answer.save(tmp_path / "answer.json")) == answer
    assert answer.summary() == {"answer": answer.text, "prompt_tokens": 120, "new_tokens": 7, "truncated": False}
    earlier = {"text": "A.", "seconds": {}, "prompt_tokens": 1, "visual_tokens": 1, "new_tokens": 1, "reused_tokens": 0}
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    assert Answer.load(tmp_path / "earlier.json") == Answer("A.", {}, 1, 1, 1)
    (tmp_path / "answer.json").write_text('{"other": 1}')
    with pytest.raises(OutputFolderError, match="cannot be read as an answer"):
        Answer.load(tmp_path / "answer.json")


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = study_record().save(tmp_path / "one.safetensors")
    content = path.read_bytes()
    assert StudyRecord.load(path).volume_id
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(OutputFolderError, match="cannot be read as a study record"):
            StudyRecord.load(path)
    for length in range(0, len(content), 301):
        path.write_bytes(content[:length])
        with pytest.raises(OutputFolderError, match="cannot be read as a study record"):
            StudyRecord.load(path)
