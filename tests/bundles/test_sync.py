# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundles share one inference configuration, and the command that keeps it so."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest


@pytest.fixture(scope="module")
def script(repository):
    spec = importlib.util.spec_from_file_location("sync_bundles", repository / "scripts/sync_bundles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copies(repository, tmp_path):
    """The shared configurations of all bundles, to be changed."""
    for name in ("inference", "evaluate", "multi_gpu_evaluate", "sweep"):
        for path in (repository / "bundles").glob(f"*/configs/{name}.json"):
            copy = tmp_path / path.relative_to(repository / "bundles")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return tmp_path


def path_of(copies, bundle):
    return copies / bundle / "configs" / "inference.json"


def load(copies, bundle):
    return json.loads(path_of(copies, bundle).read_text(encoding="utf-8"))


def store(copies, bundle, config):
    path_of(copies, bundle).write_text(json.dumps(config, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def test_the_bundles_are_in_their_common_form(script, capsys):
    assert script.main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_every_setting_is_used_and_what_decides_the_answer_is_recorded(script, copies):
    """No setting is dead; those that are not recorded are paths, questions and where the model runs."""
    config = load(copies, script.COMMON)
    names = script.setting_names(config)
    components = json.dumps({name: value for name, value in config.items() if name != "settings"})
    unused = {"imports", "bundle_root"}
    assert {name for name in names if f'"@{name}"' not in components} <= unused | {
        "image",
        "question",
        "questions_file",
    }
    unrecorded = {name for name in names if config["settings"].get(name) != f"@{name}"}
    inputs = {"dataset_dir", "output_dir", "image", "question", "questions_file", "series_uid"}
    assert unrecorded == unused | inputs | {"device", "dtype", "attn_implementation", "vision_batch_size"}


def test_a_change_of_the_common_form_reaches_every_bundle(script, copies, capsys):
    common = load(copies, script.COMMON)
    before = {path.parts[-3]: load(copies, path.parts[-3]) for path in copies.glob("*/configs/inference.json")}
    common = {"new_setting": 5, **common, "inferer": {"_target_": "SlidingWindowInferer"}}
    store(copies, script.COMMON, common)
    others = set(before) - {script.COMMON}
    assert len(others) == 3
    assert script.main(["--bundles", str(copies), "--check"]) == 1
    assert capsys.readouterr().err.count("is not in the common form") == 3
    assert all(load(copies, bundle) == before[bundle] for bundle in others)  # --check writes nothing

    assert script.main(["--bundles", str(copies)]) == 0
    assert script.main(["--bundles", str(copies), "--check"]) == 0
    for bundle in others:
        after = load(copies, bundle)
        own = [name for name in after if name not in common]
        assert own == (["family"] if bundle == "medpruner_phantom" else [])
        assert [name for name in after if name not in own] == list(common)
        assert after == {**before[bundle], "new_setting": 5, "inferer": {"_target_": "SlidingWindowInferer"}}
        assert after["prompt"] != common["prompt"]
        assert after["model_id"] != common["model_id"]


def test_a_setting_that_nothing_would_read_is_refused(script, copies, capsys):
    config = load(copies, "medpruner_hulumed")
    store(copies, "medpruner_hulumed", {"own_setting": 1, **config})
    assert script.main(["--bundles", str(copies)]) == 1
    assert "the common form has no setting 'own_setting'" in capsys.readouterr().err
    assert "own_setting" in load(copies, "medpruner_hulumed")


def test_the_configurations_of_evaluation_are_the_same(script, copies, capsys):
    changed = copies / "medpruner_medgemma" / "configs" / "evaluate.json"
    changed.write_text(changed.read_text(encoding="utf-8").replace("m3d_vqa", "rad3d"), encoding="utf-8")
    assert script.main(["--bundles", str(copies), "--check"]) == 1
    assert f"{changed} is not in the common form" in capsys.readouterr().err
    assert script.main(["--bundles", str(copies)]) == 0
    assert changed.read_bytes() == (copies / script.COMMON / "configs" / "evaluate.json").read_bytes()
