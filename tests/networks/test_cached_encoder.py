# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""From a file to its encoded study: what the cache finds, and what it must not find."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, set_track_meta
from monai.transforms import Compose, Lambdad, RandFlipd

from monai_medpruner.data import collate_volumes
from monai_medpruner.engines import TransformersEngine, VolumeQA
from monai_medpruner.errors import IntensityUnitsError, UnreadableVolumeError, own_error
from monai_medpruner.networks import (
    CachedEncoder,
    CachedPreprocessing,
    Checkpoint,
    StudyCache,
    TransformersEncoder,
    dataset_with_cache,
)
from monai_medpruner.networks.study_cache import EARLIER_RUN
from monai_medpruner.pruners import NucleusPruner, QuestionEmbedding, TokenPruner
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.transforms import (
    IntensityWindowsd,
    InterSliceAnchorFilterd,
    LoadVolumed,
    SlicePlaned,
    TimedCompose,
    describe_transform,
)

PRUNER = NucleusPruner(tau=0.5, temperature=0.5)


@dataclass(frozen=True)
class AskedPruner(TokenPruner):
    """Keeps the tokens that are most like the question."""

    @property
    def signals(self):
        return frozenset({QuestionEmbedding()})

    def score(self, slices):
        return slices.tokens @ slices.signal(QuestionEmbedding()).mean(0)

    def select(self, score, slices):
        return score >= score.masked_fill(~slices.valid, -torch.inf).median(1, keepdim=True).values


def write_volume(path, seed=0, changed=None, **header):
    voxels = np.random.default_rng(seed).integers(-100, 200, (64, 96, 6)).astype(np.int16)
    if changed is not None:
        voxels[changed] += 1
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def way(window=(-160, 240), gamma=0.01, load=None):
    """From file to encoder; counts loads in ``load``."""
    stages = [LoadVolumed("image"), SlicePlaned("image"), IntensityWindowsd("image", "ct", [list(window)], True)]
    if load is not None:
        stages.insert(0, Lambdad("image", lambda path: load.append(path) or path))
    return Compose([TimedCompose("load", stages), TimedCompose("filter", [InterSliceAnchorFilterd("image", gamma)])])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Checkpoint(str(save_tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("tiny"))), name="tiny")


@pytest.fixture
def cache(tmp_path):
    return StudyCache(tmp_path / "cache")


def encoded(path, cache, checkpoint, pruner=PRUNER, preprocessing=None, **options):
    """The study of a file, and whether it came from the cache; memory is empty each time, as on another day."""
    encoder = CachedEncoder(TransformersEncoder(checkpoint, pruner, **options), StudyCache(cache.folder))
    volume = CachedPreprocessing(preprocessing or way(), encoder)({"image": str(path)})["image"]
    study = encoder.encode(volume)
    assert (study.record.seconds == {}) == (EARLIER_RUN in study.record.notes)
    return study, study.record.seconds == {}


def test_the_same_answers_to_the_bit(checkpoint, tmp_path, cache):
    """Every family: a study from the file, from memory and from the disk."""
    loaded = Checkpoint(str(checkpoint))
    path, loads = write_volume(tmp_path / "ct.nii.gz"), []
    engine = TransformersEngine(loaded, max_new_tokens=5)
    fresh = VolumeQA(TransformersEncoder(loaded, PRUNER), engine)
    (expected,) = fresh(way()({"image": str(path)})["image"][None], [["a?", "b?"]])
    for turn in range(3):
        encoder = CachedEncoder(TransformersEncoder(loaded, PRUNER), cache)
        batch = collate_volumes([CachedPreprocessing(way(load=loads), encoder)({"image": str(path)})])
        network = VolumeQA(encoder, engine)
        (found,) = network(batch["image"], [["a?", "b?"]])
        assert found.texts == expected.texts
        assert set(found.record.seconds) == (set() if turn else {"load", "filter", "encode", "select"})
        assert found.record.image == str(path)
        assert found.record.notes == ((EARLIER_RUN,) if turn == 2 else ())
        without = {name: value for name, value in found.record.summary().items() if name != "notes"}
        assert without == {name: value for name, value in expected.record.summary().items() if name != "notes"}
        assert found.record.settings.keys() == expected.record.settings.keys()
        tokens = network(batch["image"])
        assert torch.equal(tokens, fresh(way()({"image": str(path)})["image"][None]))
        if turn == 1:
            cache.forget_memory()
    assert len(loads) == 1


def test_next_day_from_another_place(tiny, tmp_path, cache):
    path = write_volume(tmp_path / "ct.nii.gz")
    study, found = encoded(path, cache, tiny)
    assert not found
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "renamed.nii.gz")
    again, found = encoded(moved, cache, tiny)
    assert found
    assert again.key == study.key
    assert again.record.image == str(moved)
    assert all(map(torch.equal, study.tokens, again.tokens))


OTHERS = {
    "one voxel": {"path": {"changed": (3, 4, 2)}},
    "header": {"path": {"descrip": b"another"}},
    "window": {"preprocessing": way(window=(-150, 240))},
    "gamma": {"preprocessing": way(gamma=0.011)},
    "one more transform": {"preprocessing": Compose([way(), Lambdad("image", lambda volume: volume)])},
    "tau": {"pruner": NucleusPruner(tau=0.51, temperature=0.5)},
    "another field": {"pruner": NucleusPruner(tau=0.5, temperature=0.5, min_tokens=2)},
    "no pruner": {"pruner": None},
    "positions": {"preserve_position_ids": False},
    "token budget": {"token_budget": 10**6},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_study_is_encoded(tiny, tmp_path, cache, other):
    """Each part of the key; and the study that was there is still found."""
    changed = dict(OTHERS[other])
    path = write_volume(tmp_path / "ct.nii.gz")
    assert not encoded(path, cache, tiny)[1]
    another = write_volume(tmp_path / "other.nii.gz", **changed.pop("path", {}))
    study, found = encoded(another, cache, tiny, **changed)
    assert not found
    assert encoded(another, cache, tiny, **changed)[1]
    assert encoded(path, cache, tiny)[1]
    # the study of these settings, not the one that was there
    encoder = TransformersEncoder(
        tiny, changed.pop("pruner", PRUNER), **{k: v for k, v in changed.items() if k != "preprocessing"}
    )
    expected = encoder.encode((changed.get("preprocessing") or way())({"image": str(another)})["image"])
    assert all(map(torch.equal, study.tokens, expected.tokens))


@pytest.mark.parametrize("other", ["weights", "dtype", "revision", "attention", "versions"])
def test_another_model_is_asked_itself(tiny, tmp_path, cache, other, monkeypatch):
    path = write_volume(tmp_path / "ct.nii.gz")
    folder = tiny.path_or_id
    assert not encoded(path, cache, tiny)[1]
    assert encoded(path, cache, Checkpoint(folder, name="tiny"))[1]
    loading = {"dtype": {"dtype": "bfloat16"}, "attention": {"attn_implementation": "eager"}}.get(other, {})
    if other == "weights":
        folder = save_tiny_checkpoint("qwen3_vl", tmp_path / "seeded", seed=5)
    model = Checkpoint(str(folder), name="tiny", **loading)
    if other == "revision":
        model.revision = "abc"
    if other == "versions":
        monkeypatch.setattr("monai_medpruner.networks.study_key.package_versions", lambda: {"torch": "1"})
    assert not encoded(path, cache, model)[1]
    assert encoded(path, cache, model)[1]


def test_a_commit_of_the_hub_counts_where_none_was_asked_for(tiny, monkeypatch):
    monkeypatch.setattr(tiny.model.config, "_commit_hash", "abc", raising=False)
    assert tiny.describe()["revision"] == "abc"


def test_nothing_of_a_patient_or_a_path_is_kept(tiny, tmp_path, cache):
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    path = write_volume(folder / "doe_jane_1950.nii.gz", descrip=b"DOE^JANE 1950")
    encoded(path, cache, tiny)
    (file,) = cache.folder.glob("*.safetensors")
    content = file.read_bytes().lower()
    assert not [word for word in (b"jane", b"1950", str(tmp_path).encode().lower()) if word in content]
    assert "jane" not in file.name.lower()


def test_voxels_that_were_changed_are_not_mistaken(tiny, tmp_path, cache):
    """The metadata say nothing of the change; the cache looks at the voxels, the files' hash is void."""
    path = write_volume(tmp_path / "ct.nii.gz")
    encoder = CachedEncoder(TransformersEncoder(tiny, PRUNER), cache)
    first = encoder.encode(way()({"image": str(path)})["image"])
    assert encoder.encode(way()({"image": str(path)})["image"]).record.seconds.keys() == {"load", "filter"}
    changed = way()({"image": str(path)})["image"]
    changed[0, 5, 5, 0] = 1 - changed[0, 5, 5, 0]
    other = encoder.encode(changed)
    assert other.key != first.key
    assert "encode" in other.record.seconds
    # slices of a marked volume taken away
    marked = CachedPreprocessing(way(gamma=None), encoder)({"image": str(path)})["image"]
    part = InterSliceAnchorFilterd("image", 0.5)({"image": marked})["image"]
    assert part.shape[-1] < marked.shape[-1]
    assert encoder.encode(part).key.volume.startswith("voxels:")
    assert encoder.encode(marked).key.volume.startswith("files:")


def test_a_file_that_changes_while_it_is_loaded(tiny, tmp_path, cache):
    path = write_volume(tmp_path / "ct.nii.gz")
    overwrite = Lambdad("image", lambda name: write_volume(name, seed=1) and name)
    encoder = CachedEncoder(TransformersEncoder(tiny, PRUNER), cache)
    volume = CachedPreprocessing(Compose([overwrite, way()]), encoder)({"image": str(path)})["image"]
    assert encoder.encode(volume).key.volume.startswith("voxels:")


def test_what_is_never_looked_up(tiny, tmp_path, cache):
    path = write_volume(tmp_path / "ct.nii.gz")
    encoder = CachedEncoder(TransformersEncoder(tiny, PRUNER), cache)
    random = CachedPreprocessing(Compose([way(), RandFlipd("image", prob=1.0)]), encoder)
    for _ in range(2):
        assert random({"image": str(path)})["image"].shape[-1] > 1
    load = CachedPreprocessing(way(), encoder)
    encoder.encode(load({"image": str(path)})["image"])
    assert load({"image": str(path)})["image"].shape == (1, 1, 1, 1)
    set_track_meta(False)
    try:
        assert type(load({"image": str(path)})["image"]) is torch.Tensor
    finally:
        set_track_meta(True)
    with pytest.raises(RuntimeError) as raised:
        load({"image": str(tmp_path / "absent.nii.gz")})
    assert isinstance(own_error(raised.value), UnreadableVolumeError)


def test_workers_of_a_data_loader_load_and_mark(tiny, tmp_path, cache):
    """A worker has no model to ask for the key; the encoder finds the study by the mark."""
    path = write_volume(tmp_path / "ct.nii.gz")
    study, _ = encoded(path, cache, tiny)
    encoder = CachedEncoder(TransformersEncoder(tiny, PRUNER), cache)
    plain = Dataset([{"image": str(path)}], way())
    data = dataset_with_cache(plain, encoder)
    assert plain[0]["image"].shape[-1] > 1
    assert data[0]["image"].shape == (1, 1, 1, 1)
    (batch,) = DataLoader(data, num_workers=1, collate_fn=collate_volumes)
    found = encoder.encode(batch["image"][0])
    assert found.key == study.key
    assert set(found.record.seconds) == {"load", "filter"}
    assert EARLIER_RUN in found.record.notes


def test_a_batch_of_both(tiny, tmp_path, cache):
    """One volume in the cache, one that is loaded; each is answered as if alone."""
    paths = [write_volume(tmp_path / f"{seed}.nii.gz", seed=seed) for seed in range(3)]
    network = VolumeQA(
        CachedEncoder(TransformersEncoder(tiny, PRUNER), cache), TransformersEngine(tiny, max_new_tokens=4)
    )
    load = CachedPreprocessing(way(), network.encoder)
    alone = [network.encode(load({"image": str(path)})["image"]) for path in paths[:2]]
    batch = collate_volumes([load({"image": str(path)}) for path in (paths[0], paths[2], paths[1])])
    answers = network(batch["image"], [["a?"]] * 3)
    assert [answer.record.image for answer in answers] == [str(paths[0]), str(paths[2]), str(paths[1])]
    assert [answer.record.seconds == {} for answer in answers] == [True, False, True]
    assert answers[0].texts == [network.answer(alone[0], "a?").text]
    assert answers[2].texts == [network.answer(alone[1], "a?").text]


def test_a_pruner_that_needs_the_question(tiny, tmp_path, cache):
    """What waits is in memory; what was pruned for a question is on disk, under the question's own key."""
    path, pruner = write_volume(tmp_path / "ct.nii.gz"), AskedPruner()
    plain = TransformersEncoder(tiny, pruner)
    encoder = CachedEncoder(plain, cache)
    study = encoder.encode(CachedPreprocessing(way(), encoder)({"image": str(path)})["image"])
    first, other = (encoder.for_question(study, text) for text in ("Is it?", "Where?"))
    assert first.key != other.key
    again = CachedEncoder(plain, StudyCache(cache.folder)).for_question(study, "Is it?")
    assert EARLIER_RUN in again.record.notes
    assert all(map(torch.equal, first.tokens, again.tokens))
    assert all(map(torch.equal, first.tokens, plain.for_question(study, "Is it?").tokens))
    assert again.record.image == str(path)
    waiting = CachedPreprocessing(way(), encoder)({"image": str(path)})["image"]
    assert encoder.encode(waiting).pending is not None


def test_it_says_what_the_encoder_and_the_transforms_say(tiny, cache):
    encoder = TransformersEncoder(tiny, PRUNER, token_budget=500)
    wrapped = CachedEncoder(encoder, cache)
    assert wrapped.describe() == encoder.describe()
    assert (wrapped.pruner, wrapped.token_budget, wrapped.checkpoint) == (PRUNER, 500, tiny)
    assert describe_transform(CachedPreprocessing(way(), wrapped)) == describe_transform(way())
    assert wrapped.with_pruner(None).describe() == {**encoder.describe(), "pruner": None}
    assert encoder.pruner is PRUNER
    (study,) = wrapped.encode_each(MetaTensor(torch.rand(1, 64, 64, 2)), [None])
    assert study.key.pruner == "null"
    assert not list(cache.folder.glob("*.safetensors"))


def test_an_empty_volume_reaches_no_other_encoder(tiny, tmp_path, cache):
    path = write_volume(tmp_path / "ct.nii.gz")
    encoded(path, cache, tiny)
    encoder = TransformersEncoder(tiny, PRUNER)
    volume = CachedPreprocessing(way(), CachedEncoder(encoder, cache))({"image": str(path)})["image"]
    with pytest.raises(IntensityUnitsError):
        encoder.encode(volume)
