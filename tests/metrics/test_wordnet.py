# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""WordNet from Debian packages, and the errors if it is not available."""

from __future__ import annotations

import logging
import subprocess

import nltk
import pytest

from monai_medpruner.errors import OutputFolderError, PackageVersionError, SettingsError
from monai_medpruner.metrics import PROTOCOLS, MeteorMetric, find_wordnet, prepare_wordnet
from monai_medpruner.metrics import wordnet as module


@pytest.fixture
def no_search_path(monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])


def test_prepared_folder_is_complete(prepared_wordnet):
    root = prepared_wordnet / "corpora" / "wordnet"
    lines = (root / "lexnames").read_text().splitlines()
    assert len(lines) == 45
    assert lines[0] == "00\tadj.all\t3"
    assert lines[3] == "03\tnoun.Tops\t1"
    assert lines[29] == "29\tverb.body\t2"
    assert lines[44] == "44\tadj.ppl\t3"
    assert not list(prepared_wordnet.glob("corpora/*.part"))


def test_prepared_wordnet_is_found_by_nltk(prepared_wordnet, no_search_path):
    assert find_wordnet() is None
    reader = find_wordnet(prepared_wordnet)
    assert "doctor" in {lemma.name() for synset in reader.synsets("physician") for lemma in synset.lemmas()}
    assert reader.synset("liver.n.01").lexname() == "noun.body"
    assert find_wordnet(prepared_wordnet) is reader
    # the folder was added to NLTK's path
    assert find_wordnet() is not None


def test_protocols_use_wordnet(prepared_wordnet, no_search_path):
    names = [scorer.name for scorer in PROTOCOLS["meduni-vqa"].with_wordnet(prepared_wordnet).scorers]
    assert names == ["bleu-1", "bleu-4", "rouge-1", "rouge-l", "meteor"]
    metric = MeteorMetric(wordnet=prepared_wordnet)
    metric(["physician", ""], ["doctor", "doctor"])
    assert metric.aggregate().item() == pytest.approx(0.25)


def test_without_wordnet_the_metric_has_another_name(no_search_path, caplog):
    with caplog.at_level(logging.WARNING):
        plan = PROTOCOLS["m3d-official"].with_wordnet()
    assert [scorer.name for scorer in plan.scorers] == ["bleu-1", "rouge-1", "meteor-exact-stem"]
    assert "meteor-exact-stem" in caplog.text
    with pytest.raises(SettingsError, match="needs WordNet"):
        MeteorMetric()


def test_a_given_folder_must_contain_wordnet(tmp_path):
    with pytest.raises(SettingsError, match=r"lacks .*index\.sense"):
        find_wordnet(tmp_path)
    with pytest.raises(SettingsError, match="no WordNet"):
        PROTOCOLS["meduni-vqa"].with_wordnet(tmp_path)


@pytest.mark.parametrize("program", ["apt-get", "dpkg"])
def test_missing_apt_error_says_what_to_do(tmp_path, monkeypatch, program):
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == program else f"/usr/bin/{name}")
    with pytest.raises(PackageVersionError, match=rf"{program} is not installed.*Debian"):
        prepare_wordnet(tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.fixture
def fake_apt(monkeypatch):
    """Fake apt-get and dpkg; each test defines what they do."""
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")

    def install(act):
        def run(command, cwd, **kwargs):
            return act(command, cwd)

        monkeypatch.setattr(module.subprocess, "run", run)

    return install


def test_apts_error_message_is_shown(tmp_path, fake_apt):
    def fail(command, cwd):
        raise subprocess.CalledProcessError(100, command, stderr="W: x\nE: Unable to locate package wordnet-base\n")

    fake_apt(fail)
    with pytest.raises(PackageVersionError, match=r"Unable to locate package wordnet-base; try apt-get update"):
        prepare_wordnet(tmp_path)


def test_a_hanging_download_times_out(tmp_path, fake_apt):
    def hang(command, cwd):
        raise subprocess.TimeoutExpired(command, 300)

    fake_apt(hang)
    with pytest.raises(PackageVersionError, match="did not finish within 300 s"):
        prepare_wordnet(tmp_path)


def test_incomplete_packages_keep_the_old_wordnet(tmp_path, fake_apt):
    old = tmp_path / "corpora" / "wordnet" / "data.noun"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    fake_apt(lambda command, cwd: None)
    with pytest.raises(PackageVersionError, match=r"lack .*data\.noun"):
        prepare_wordnet(tmp_path)
    assert old.read_text() == "old"


def _unpack_all_files(command, cwd):
    folder = cwd / "unpacked" / "usr" / "share" / "wordnet"
    if command[0] == "apt-get":
        (cwd / "wordnet-base.deb").touch()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name in module.WordNetCorpusReader._FILES:
            (folder / name).write_text("new")


def test_a_new_wordnet_replaces_the_old_one(tmp_path, fake_apt):
    fake_apt(_unpack_all_files)
    for _ in range(2):
        root = prepare_wordnet(tmp_path)
    assert root == tmp_path.resolve() / "corpora" / "wordnet"
    assert (root / "data.noun").read_text() == "new"
    assert (root / "lexnames").read_text().count("\n") == 45


def test_destination_that_cannot_be_written(tmp_path, fake_apt):
    fake_apt(_unpack_all_files)
    (tmp_path / "corpora").write_text("a file")
    with pytest.raises(OutputFolderError, match="cannot write WordNet"):
        prepare_wordnet(tmp_path)
