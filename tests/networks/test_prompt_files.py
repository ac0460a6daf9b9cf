# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The beginning of a prompt is read from a file on another day, and no answer changes by it."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from test_prompt_prefix import tokens_run

from monai_medpruner.engines import TransformersEngine, VolumePrompt, VolumeQA
from monai_medpruner.networks import CachedEncoder, Checkpoint, StudyCache, TransformersEncoder
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import randomize_weights

QUESTIONS = ["Is there a lesion?", "Which organ? In one word."]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    """A checkpoint whose answers depend on what it sees."""
    loaded = Checkpoint(str(checkpoint))
    randomize_weights(loaded.model)
    return loaded


PRUNER = NucleusPruner(tau=0.5, temperature=0.5)


def day(loaded, folder, instruction="Read the slices.", pruner=PRUNER, **options):
    """A run that has a folder alone from the run before."""
    cache = StudyCache(folder, **options)
    encoder = CachedEncoder(TransformersEncoder(loaded, pruner), cache)
    engine = TransformersEngine(loaded, max_new_tokens=12, cache=cache)
    return VolumeQA(encoder, engine, VolumePrompt(instruction))


def volume(seed=0):
    return MetaTensor(torch.rand(1, 64, 96, 5, generator=torch.Generator().manual_seed(seed)))


def asked(qa, question, seed=0):
    return qa.answer(qa.encode(volume(seed)), question)


def prompt_files(folder):
    return sorted(folder.glob("*.prompt.safetensors"))


def test_next_day(loaded, tmp_path):
    """The same answers, token for token; of the prompt only the rest is run; the file's values are exact."""
    expected = {one: asked(day(loaded, tmp_path / "other"), one).text for one in QUESTIONS}
    first = asked(day(loaded, tmp_path), QUESTIONS[0])
    assert first.reused_tokens == 0
    assert len(prompt_files(tmp_path)) == 1
    for question in QUESTIONS:
        later = day(loaded, tmp_path)
        lengths, handle = tokens_run(loaded.model)
        with handle:
            answer = asked(later, question)
        assert answer.text == expected[question]
        assert answer.reused_tokens > 0.5 * answer.prompt_tokens
        assert lengths[0] == answer.prompt_tokens - answer.reused_tokens
        assert set(lengths[1:]) <= {1}
    held = later.engine._prefix._held
    fresh = day(loaded, tmp_path / "fresh")
    study = fresh.encode(volume())
    fresh.answer(study, QUESTIONS[0])
    for read, run in zip(held.layers, fresh.engine._prefix._held.layers, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(read, run, strict=True))


@pytest.mark.parametrize("change", ["instruction", "voxel", "weights", "dtype"])
def test_another_beginning_is_not_found(loaded, tmp_path, monkeypatch, change):
    """Whatever keys and values are made of: one difference, and the file is not taken."""
    asked(day(loaded, tmp_path), QUESTIONS[0])
    if change == "weights":
        monkeypatch.setattr(loaded, "_digest", "0" * 64)
    if change == "dtype":
        described = {**loaded.describe(), "dtype": "bfloat16"}
        monkeypatch.setattr(loaded, "describe", lambda: described)
    later = day(loaded, tmp_path, "Look at the slices." if change == "instruction" else "Read the slices.")
    answer = asked(later, QUESTIONS[0], seed=int(change == "voxel"))
    assert answer.reused_tokens == 0
    assert len(prompt_files(tmp_path)) == 2


def test_other_tokens_at_the_same_places(loaded, tmp_path):
    """Without pruning two studies have the same ids and positions, and differ in their tokens alone."""
    expected = asked(day(loaded, tmp_path / "other", pruner=None), QUESTIONS[0], seed=1)
    asked(day(loaded, tmp_path, pruner=None), QUESTIONS[0])
    answer = asked(day(loaded, tmp_path, pruner=None), QUESTIONS[0], seed=1)
    assert (answer.text, answer.reused_tokens) == (expected.text, 0)
    assert len(prompt_files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "byte", "other", "foreign"])
def test_a_damaged_file_is_run_again_and_replaced(loaded, tmp_path, caplog, damage):
    expected = asked(day(loaded, tmp_path), QUESTIONS[0])
    asked(day(loaded, tmp_path), QUESTIONS[0], seed=1)
    one, other = prompt_files(tmp_path)
    whole = {path: path.read_bytes() for path in (one, other)}
    for path, content in whole.items():
        changed = content[:-1] + bytes([content[-1] ^ 1])
        swapped = whole[other if path == one else one]
        path.write_bytes({"cut": content[:-9], "byte": changed, "other": swapped, "foreign": b"text"}[damage])
    answer = asked(day(loaded, tmp_path), QUESTIONS[0])
    assert (answer.text, answer.reused_tokens) == (expected.text, 0)
    assert "its prompt is run again" in caplog.text
    assert asked(day(loaded, tmp_path), QUESTIONS[0]).reused_tokens > 0
    assert sum(path.read_bytes() == content for path, content in whole.items()) == 1


def test_bounds(loaded, tmp_path):
    """A large file is not written, and files of both kinds share one limit."""
    asked(day(loaded, tmp_path), QUESTIONS[0])
    (file,) = prompt_files(tmp_path)
    size = file.stat().st_size
    asked(day(loaded, tmp_path / "small", disk_bytes=size * 9), QUESTIONS[0])
    assert prompt_files(tmp_path / "small") == []
    limit = size * 12
    for seed in range(12):
        asked(day(loaded, tmp_path / "large", disk_bytes=limit), QUESTIONS[0], seed)
    assert sum(path.stat().st_size for path in (tmp_path / "large").glob("*.safetensors")) <= limit
    assert 0 < len(prompt_files(tmp_path / "large")) < 12


def test_no_folder_writes_nothing(loaded, tmp_path):
    asked(day(loaded, None), QUESTIONS[0])
    assert list(tmp_path.iterdir()) == []
