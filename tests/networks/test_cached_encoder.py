# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""From a file to its encoded study: what the cache finds, and what it must not find."""

from __future__ import annotations

import json
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
from monai_medpruner.networks.study_key import StudyKey, VolumeSource
from monai_medpruner.pruners import NucleusPruner, QuestionEmbedding, TokenBudget, TokenPruner
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.transforms import (
    CropBodyd,
    FindBodyd,
    IntensityWindowsd,
    InterSliceAnchorFilterd,
    LoadVolumed,
    SelectSlicesd,
    SliceLimitd,
    SlicePlaned,
    SliceRanged,
    TimedCompose,
    describe_transform,
)
from monai_medpruner.transforms.slice_rules import AnchorRule

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


def write_volume(path, seed=0, changed=None, air=False, **header):
    voxels = np.random.default_rng(seed).integers(-100, 200, (64, 96, 6)).astype(np.int16)
    if air:
        voxels[:8] = voxels[48:] = voxels[:, :12] = voxels[:, 80:] = -1000
    if changed is not None:
        voxels[changed] += 1
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def way(window=(-160, 240), gamma=0.01, load=None, slices="all", rule=None, crop=None, **anchor):
    """From file to encoder; counts loads in ``load``."""
    stages = [LoadVolumed("image"), SlicePlaned("image"), IntensityWindowsd("image", "ct", [list(window)], True)]
    if load is not None:
        stages.insert(0, Lambdad("image", lambda path: load.append(path) or path))
    if crop is not None:
        stages.insert(-1, FindBodyd("image"))
    stages.append(SliceRanged("image", slices))
    chosen = [InterSliceAnchorFilterd("image", gamma, **anchor)] if rule is None else [rule]
    chosen += [] if crop is None else [CropBodyd("image", **crop)]
    return Compose([TimedCompose("load", stages), TimedCompose("filter", chosen)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Checkpoint(str(save_tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("tiny"))), name="tiny")


@pytest.fixture
def cache(tmp_path):
    return StudyCache(tmp_path / "cache")


def encoded(path, cache, checkpoint, pruner=PRUNER, preprocessing=None, **options):
    """The study of a file, and whether it came from the cache; memory is empty each time, as on another day."""
    encoder = CachedEncoder(TransformersEncoder(checkpoint, pruner, **options), StudyCache(cache.files.path))
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


RETAINED = {"budget": TokenBudget(0.5)}
ALIKE = {"gamma": 0.0}
# the first settings, and others under which nothing of the first may be found
PAIRS = {
    "a budget": ({}, RETAINED),
    "retention": (RETAINED, {"budget": TokenBudget(0.51)}),
    "number of tokens": ({"budget": TokenBudget(max_visual_tokens=8)}, {"budget": TokenBudget(max_visual_tokens=9)}),
    "share of slices": (RETAINED, {"budget": TokenBudget(0.5, slice_ratio=0.4)}),
    "shared slices": (RETAINED, {"budget": TokenBudget(0.5, share_slices=False)}),
    "gap of the budget": (RETAINED, {"budget": TokenBudget(0.5, max_gap_mm=2.0)}),
    "image processing": ({"image_processing": "fast"}, {"image_processing": "stock"}),
    "range": (ALIKE, {**ALIKE, "slices": "0:5"}),
    "crop": (ALIKE, {**ALIKE, "crop": {"margin_mm": 0}}),
    "margin": ({"crop": {"margin_mm": 0}}, {"crop": {"margin_mm": 4}}),
    "square": ({"crop": {"margin_mm": 0}}, {"crop": {"margin_mm": 0, "square": True}}),
    "crop of a range": ({"crop": {}}, {"crop": {}, "slices": "0:5"}),
    "crop under a budget": ({"crop": {}, **RETAINED}, {"crop": {}}),
    "largest gap": ({"gamma": 1.0}, {"gamma": 1.0, "max_gap_mm": 4.0}),
    "another largest gap": ({"gamma": 1.0, "max_gap_mm": 4.0}, {"gamma": 1.0, "max_gap_mm": 6.0}),
    "guard": ({"gamma": 1.0}, {"gamma": 1.0, "guard_mm": 4.0}),
    "threshold of the guard": (
        {"gamma": 1.0, "guard_mm": 4.0},
        {"gamma": 1.0, "guard_mm": 4.0, "guard_threshold": 0.9},
    ),
    "limit": ({"rule": SliceLimitd("image", 3)}, {"rule": SliceLimitd("image", 4)}),
    "rule of the limit": ({"rule": SliceLimitd("image", 3)}, {"rule": SliceLimitd("image", 3, "medgemma")}),
    "ratio of the limit": ({"rule": SliceLimitd("image", ratio=0.4)}, {"rule": SliceLimitd("image", ratio=0.5)}),
    "gap of the limit": (
        {"rule": SliceLimitd("image", ratio=0.4)},
        {"rule": SliceLimitd("image", ratio=0.4, max_gap_mm=2.0)},
    ),
    "slice rule": ({"rule": SelectSlicesd("image", "evs")}, {"rule": SelectSlicesd("image", "hulumed")}),
    "slices of a rule": (
        {"rule": SelectSlicesd("image", "evenly_spaced_mm", 2)},
        {"rule": SelectSlicesd("image", "evenly_spaced_mm", 3)},
    ),
    "field of a rule": (
        {"rule": SelectSlicesd("image", AnchorRule(1.0, max_gap_mm=4.0))},
        {"rule": SelectSlicesd("image", AnchorRule(1.0, max_gap_mm=6.0))},
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_other_settings_are_another_study(tiny, tmp_path, cache, pair):
    """Neither finds the other; each finds itself, with the tokens and the record that it has without a cache."""
    path = write_volume(tmp_path / "ct.nii.gz", air=True)
    ways = []
    for given in PAIRS[pair]:
        options = {name: given[name] for name in ("budget", "image_processing") if name in given}
        ways.append((options, way(**{name: value for name, value in given.items() if name not in options})))
    for options, preprocessing in ways:
        assert not encoded(path, cache, tiny, preprocessing=preprocessing, **options)[1]
    for options, preprocessing in ways:
        study, found = encoded(path, cache, tiny, preprocessing=preprocessing, **options)
        assert found
        expected = TransformersEncoder(tiny, PRUNER, **options).encode(preprocessing({"image": str(path)})["image"])
        same_but_for_the_run(study, expected)


def same_but_for_the_run(study, expected):
    assert len(study.tokens) == len(expected.tokens)
    assert all(map(torch.equal, study.tokens, expected.tokens))
    tensors, facts = study.record.packed()
    others, other_facts = expected.record.packed()
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name].nan_to_num(-1), others[name].nan_to_num(-1)) for name in tensors)
    ours = {**facts, "notes": [note for note in facts["notes"] if note != EARLIER_RUN], "seconds": {}}
    # tuples are lists after a way through JSON
    assert json.dumps(ours) == json.dumps({**other_facts, "seconds": {}})


def test_the_name_of_a_preset_changes_no_token(tiny, tmp_path, cache):
    """Found under another name, and recorded under this run's."""
    path = write_volume(tmp_path / "ct.nii.gz")
    study, _ = encoded(path, cache, tiny, preset="paper")
    again, found = encoded(path, cache, tiny, preset="mine")
    assert found
    assert again.key == study.key
    assert (study.record.settings["preset"], again.record.settings["preset"]) == ("paper", "mine")
    assert {**again.record.settings, "preset": "paper"} == study.record.settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("range_depth", 5),
        ("source_depth", 7),
        ("slice_positions_mm", [0.0, 2.0, 9.0, 11.0]),
        ("uncropped_size", [64, 96]),
    ],
)
def test_equal_slices_of_another_volume(tiny, cache, name, value):
    """What a budget allows, and the record, depend on the volume that the slices come from."""
    encoder = CachedEncoder(TransformersEncoder(tiny, PRUNER, **RETAINED), cache)
    voxels = torch.rand(1, 32, 64, 4, generator=torch.Generator().manual_seed(0))
    whole = {"kept_indices": [0, 1, 2, 3], "source_depth": 6, "range_depth": 6, "slice_positions_mm": [0.0, 2, 4, 6]}
    whole |= {"crop": [[0, 32], [0, 64]], "uncropped_size": [64, 64], "preprocessing": [], "volume_id": "ab"}
    first = encoder.encode(MetaTensor(voxels, meta=whole))
    changed = {**whole, name: value}
    other = encoder.encode(MetaTensor(voxels, meta=changed))
    assert other.key != first.key
    assert other.key.preprocessing == first.key.preprocessing
    expected = TransformersEncoder(tiny, PRUNER, **RETAINED).encode(MetaTensor(voxels, meta=changed))
    same_but_for_the_run(other, expected)
    assert "encode" not in encoder.encode(MetaTensor(voxels, meta=changed)).record.seconds


def test_what_another_encoder_tells_of_itself(cache):
    class Described(torch.nn.Module):
        def __init__(self, **told):
            super().__init__()
            self.told = told

        def describe(self):
            return {"model": {"name": "a"}, "pruner": None, **self.told}

    source = VolumeSource("files:ab", "[]")
    told = [{}, {"resampling": 2}, {"resampling": 3}, {"budget": {"retention": 0.1}}, {"preset": "fast"}]
    keys = [StudyKey.of(source, CachedEncoder(Described(**one), cache).describe()) for one in told]
    assert len(set(keys)) == 4
    assert keys[0] == keys[4]


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


def test_nothing_of_a_patient_or_a_path_is_kept(tiny, tmp_path, cache):
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    path = write_volume(folder / "doe_jane_1950.nii.gz", descrip=b"DOE^JANE 1950")
    encoded(path, cache, tiny)
    (file,) = cache.files.path.glob("*.safetensors")
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
    # a marked volume, changed in place or turned over
    for change in (lambda volume: volume * 0.5, lambda volume: volume.flip(1), lambda volume: volume.flip(2)):
        marked = CachedPreprocessing(way(gamma=None), encoder)({"image": str(path)})["image"]
        turned = change(marked)
        assert "study_source" in turned.meta
        assert encoder.encode(turned).key.volume.startswith("voxels:")
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
    again = CachedEncoder(plain, StudyCache(cache.files.path)).for_question(study, "Is it?")
    assert EARLIER_RUN in again.record.notes
    assert all(map(torch.equal, first.tokens, again.tokens))
    assert all(map(torch.equal, first.tokens, plain.for_question(study, "Is it?").tokens))
    assert again.record.image == str(path)
    waiting = CachedPreprocessing(way(), encoder)({"image": str(path)})["image"]
    assert encoder.encode(waiting).pending is not None
    # the study of an encoder without a budget, asked under one, and the other way round
    limited = CachedEncoder(TransformersEncoder(tiny, pruner, budget=TokenBudget(0.45)), cache)
    under = limited.for_question(study, "Is it?")
    assert sum(map(len, under.tokens)) < sum(map(len, first.tokens))
    assert sum(map(len, limited.for_question(study, "Is it?").tokens)) == sum(map(len, under.tokens))
    assert all(map(torch.equal, encoder.for_question(study, "Is it?").tokens, first.tokens))
    kept = limited.encode(CachedPreprocessing(way(), limited)({"image": str(path)})["image"])
    assert kept.key != study.key
    assert limited.for_question(kept, "Is it?").key != first.key


def test_it_says_what_the_encoder_and_the_transforms_say(tiny, cache):
    encoder = TransformersEncoder(tiny, PRUNER, token_budget=500, budget=TokenBudget(0.9))
    wrapped = CachedEncoder(encoder, cache)
    assert wrapped.describe() == encoder.describe()
    assert (wrapped.pruner, wrapped.token_budget, wrapped.checkpoint) == (PRUNER, 500, tiny)
    assert wrapped.budget == TokenBudget(0.9)
    assert describe_transform(CachedPreprocessing(way(), wrapped)) == describe_transform(way())
    assert wrapped.with_pruner(None).describe() == {**encoder.describe(), "pruner": None}
    assert encoder.pruner is PRUNER
    (study,) = wrapped.encode_each(MetaTensor(torch.rand(1, 64, 64, 2)), [None])
    assert study.key.pruner == "null"
    assert not list(cache.files.path.glob("*.safetensors"))


def test_an_empty_volume_reaches_no_other_encoder(tiny, tmp_path, cache):
    path = write_volume(tmp_path / "ct.nii.gz")
    encoded(path, cache, tiny)
    encoder = TransformersEncoder(tiny, PRUNER)
    volume = CachedPreprocessing(way(), CachedEncoder(encoder, cache))({"image": str(path)})["image"]
    with pytest.raises(IntensityUnitsError):
        encoder.encode(volume)
