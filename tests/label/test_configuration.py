# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Configuration from the server's command line."""

from __future__ import annotations

import pytest

from monai_medpruner.errors import SettingsError
from monai_medpruner.label import configuration as module
from monai_medpruner.label.configuration import configuration
from monai_medpruner.settings import bundle_folders
from monai_medpruner.testing import save_tiny_checkpoint


def test_a_bundle_and_its_settings():
    chosen = configuration({"model": "medgemma", "gamma": "0.05", "tau": "0.8", "pruner": "nucleus", "cache_mb": "10"})
    assert chosen.bundle == bundle_folders()["medpruner_medgemma"]
    assert chosen.overrides == {"gamma": 0.05, "tau": 0.8, "pruner": "nucleus"}
    assert chosen.cache_bytes == 10 * 2**20


def test_fields_of_the_pruner():
    chosen = configuration({"model": "qwen3vl", "token_pruner::min_tokens": "2", "token_pruner::scope": "volume"})
    assert chosen.overrides == {"token_pruner::min_tokens": 2, "token_pruner::scope": "volume"}


def test_a_checkpoint_folder_has_the_bundle_of_its_model(tmp_path):
    folder = save_tiny_checkpoint("video_llama_3", tmp_path / "checkpoint")
    chosen = configuration({"model": str(folder)})
    assert chosen.bundle == bundle_folders()["medpruner_hulumed"]
    assert chosen.overrides == {"model_id": str(folder.resolve()), "revision": None}


def test_a_bundle_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(module, "bundle_folders", lambda: {"medpruner_qwen3vl": None})
    with pytest.raises(SettingsError, match="needs the bundle medpruner_phantom, which is not installed"):
        configuration({"model": "phantom"})


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({}, "add --conf model"),
        ({"model": "gpt"}, "or a checkpoint folder, got 'gpt'"),
        ({"model": "tiny", "output_dir": "x"}, "--conf output_dir is not known"),
        ({"model": "tiny", "image": "x"}, "--conf image is not known"),
        ({"model": "tiny", "token_pruner::_target_.x": "os.system"}, "there is no setting --token_pruner"),
        ({"model": "tiny", "tau": "many"}, "tau must be a number"),
        ({"model": "tiny", "plane": "$print(1)"}, "must not begin with"),
        ({"model": "tiny", "family": "gemma3"}, "a setting of the phantom bundle"),
        ({"model": "tiny", "cache_mb": "-1"}, "cache_mb must be a whole number"),
    ],
    ids=str,
)
def test_invalid_configurations(conf, message):
    with pytest.raises(SettingsError, match=message):
        configuration(conf)
