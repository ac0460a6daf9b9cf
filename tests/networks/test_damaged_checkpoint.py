# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are damaged, pickled, bring code or cannot be had: refused by name, and without delay."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import CheckpointError
from monai_medpruner.networks import Checkpoint, checkpoint, hub_access
from monai_medpruner.networks.checkpoint_hashes import CHECKSUMS, check_hashes, known_hashes, write_checksums
from monai_medpruner.testing import save_tiny_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "copy")


def flip(file, place=-1000):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def load(path, **given):
    return checkpoint.load_model(str(path), device="cpu", **given)


@pytest.mark.parametrize("length", [0, 5, 100, -1, -5000], ids=str)
def test_weights_that_are_cut_short(folder, length):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"cut short or damaged.*download it again"):
        load(folder)


def test_flipped_bit_with_checksums(folder):
    write_checksums(folder)
    listed = subprocess.run(["sha256sum", "--check", CHECKSUMS], cwd=folder, capture_output=True, text=True, check=True)
    assert listed.stdout == "model.safetensors: OK\n"
    assert load(folder).device.type == "cpu"
    flip(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors in .* is damaged or was changed"):
        load(folder)


def test_checksums_that_are_damaged(folder):
    write_checksums(folder)
    file = folder / CHECKSUMS
    whole = file.read_text()
    file.write_text(whole[1:])
    with pytest.raises(CheckpointError, match="SHA256SUMS is damaged"):
        load(folder)
    file.write_text(whole + whole.replace("model", "model-00002"))
    with pytest.raises(CheckpointError, match=r"lacks model-00002\.safetensors"):
        load(folder)


def test_checksums_of_the_phantom_models(repository):
    models = sorted((repository / "bundles" / "medpruner_phantom" / "models").iterdir())
    assert len(models) == 3
    for one in models:
        assert list(known_hashes(one)) == ["model.safetensors"]
        check_hashes(one)


def test_download_into_a_folder(folder):
    """As ``hf download --local-dir`` notes it."""
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (notes / "model.safetensors.metadata").write_text(f"{COMMIT}\n{digest}\n1700000000.0\n")
    (notes / "config.json.metadata").write_text(f"{COMMIT}\n{'0' * 40}\n1700000000.0\n")  # no weights
    load(folder)
    flip(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="is damaged or was changed"):
        load(folder)


@pytest.fixture
def hub_cache(original, tmp_path, monkeypatch):
    """The Hub's cache with one commit of someone/model, as its client lays it out."""
    place = tmp_path / "hub" / "models--someone--model"
    for name in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (place / name).mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    for file in original.iterdir():
        content = file.read_bytes()
        blob = place / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (place / "snapshots" / COMMIT / file.name).symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return place / "snapshots" / COMMIT


def test_hub_cache(hub_cache, monkeypatch):
    """The commit is recorded where a branch was asked for, and weights are hashed."""
    assert "model.safetensors" in known_hashes(hub_cache)
    loaded = Checkpoint("someone/model", device="cpu")
    assert loaded.describe()["revision"] == COMMIT
    assert load("someone/model", revision=COMMIT).device.type == "cpu"
    flip((hub_cache / "model.safetensors").resolve())
    with pytest.raises(CheckpointError, match="is damaged or was changed"):
        load("someone/model")


@pytest.fixture
def unreachable(monkeypatch):
    """A machine without a network, in online mode; counts the attempts to connect."""
    attempts = []

    def fail(*address, **_):
        attempts.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    return attempts


def test_no_network_and_no_copy(unreachable, caplog):
    with pytest.raises(CheckpointError, match=r"not in the local cache, and the Hub cannot be reached.*hf download"):
        checkpoint.load_config("someone/absent-model")
    assert len(unreachable) <= 1
    assert "the Hugging Face Hub cannot be reached" in caplog.text


def test_no_network_and_a_copy(unreachable, hub_cache):
    assert Checkpoint("someone/model", device="cpu").describe()["revision"] == COMMIT
    assert len(unreachable) < 8  # one for each part, and none again


def test_offline_mode_asks_nothing(tmp_path):
    """``HF_HUB_OFFLINE=1``, in a process of its own: its client reads the variable when it is imported."""
    code = """
import socket, sys
def fail(*address, **_):
    raise SystemExit(f"connects to {address}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = fail
from monai_medpruner.errors import CheckpointError
from monai_medpruner.networks.checkpoint import load_config, load_model, load_processors
for function in (load_config, load_processors, load_model):
    try:
        function("someone/absent-model")
    except CheckpointError as error:
        print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("not in the local cache") == 3


def test_paths_are_not_sent_to_the_hub(unreachable):
    for path in ("/no/such/folder", "./nowhere", "~/x", "a/b/c"):
        with pytest.raises(CheckpointError, match="no such folder"):
            checkpoint.load_config(path)
    assert unreachable == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_by_name(folder, name):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(folder / "ran"),))

    torch.save({**load_file(folder / "model.safetensors"), "evil": Evil()}, folder / name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"weights are pickled \({name}\).*only safetensors are loaded"):
        load(folder)
    assert not (folder / "ran").exists()


def test_code_of_a_checkpoint_is_not_asked_about(folder, monkeypatch):
    """transformers would ask at the terminal, and run it after a "y"."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks whether to run the code"))
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "somebody_elses", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        load(folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError):
        checkpoint.load_processors(str(folder))


def test_tiny_in_python_is_explained():
    with pytest.raises(CheckpointError, match=r"open_checkpoint\('tiny'\).*save_tiny_checkpoint"):
        VolumeQA.from_pretrained("tiny").encode(torch.rand(1, 64, 64, 2))


def calls(tree):
    """Yield the dotted name and the keywords of each call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}


def test_nothing_is_unpickled_and_no_code_trusted(repository):
    """In the source: what could read pickles does so safely, and ``from_pretrained`` gets no leave to run code."""
    seen = set()
    for folder in ("monai_medpruner", "scripts", "benchmarks"):
        for path in (repository / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "trust_remote_code=True" not in text, path
            if "testing/check_" in str(path):
                continue  # checks that a pruner can be pickled, of its own bytes
            for name, given in calls(ast.parse(text)):
                if path.parts[-2:] == ("archive", "transit.py") and name in ("pickle.dumps", "pickle.loads"):
                    continue  # rows between the processes of one archive run, which Ray itself pickles
                assert not name.startswith(("pickle.", "joblib.", "shelve.", "marshal.")), (path, name)
                if name == "torch.load":
                    assert given["weights_only"] == "True", path
                    seen.add(name)
                if name.endswith(".load") and name.startswith("np."):
                    assert given.get("allow_pickle", "False") == "False", path
    assert seen == {"torch.load"}
    access = Path(checkpoint.__file__).read_text(encoding="utf-8")
    loads = [given for name, given in calls(ast.parse(access)) if name.endswith("from_pretrained")]
    assert len(loads) == 4
    assert all(None in given for given in loads)  # **access
    assert checkpoint._access("/no/such", None)["trust_remote_code"] is False
    assert hub_access.works_offline("/no/such", None)
