# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The complete files of the bundles, and the command that generates them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import dataclass, field, fields

import pytest
from monai.bundle import ConfigParser

from monai_medpruner.pruners import PRUNERS, NucleusPruner

BUNDLES = ["medpruner_hulumed", "medpruner_medgemma", "medpruner_phantom", "medpruner_qwen3vl"]
PRESETS = [f"preset_{name}.json" for name in ("balanced", "fast", "makers", "paper", "released")]
FILES = ["evaluate.json", "inference.json", "metadata.json", "multi_gpu_evaluate.json", *PRESETS, "sweep.json"]


@pytest.fixture(scope="module")
def script(repository):
    spec = importlib.util.spec_from_file_location("sync_bundles", repository / "scripts/sync_bundles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copies(repository, tmp_path):
    """Copies of the bundles' own and generated files, which a test may change."""
    for path in (repository / "bundles").glob("*.json"):
        shutil.copy(path, tmp_path)
        for name in FILES:
            copy = tmp_path / path.stem / "configs" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / "bundles" / path.stem / "configs" / name, copy)
    return tmp_path


@pytest.fixture
def common(script, tmp_path, monkeypatch):
    """A copy of the common files, which a test may change."""
    folder = tmp_path / "common"
    shutil.copytree(script.COMMON, folder)
    monkeypatch.setattr(script, "COMMON", folder)
    return folder


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def change(path, **values):
    path.write_text(json.dumps({**load(path), **values}), encoding="utf-8")


def test_bundles_are_up_to_date(script, repository, capsys):
    assert sorted(path.stem for path in (repository / "bundles").glob("*.json")) == BUNDLES
    assert script.main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_every_setting_is_used(script):
    """No setting is unused. A setting that may be ``none`` is read after the text was replaced by null."""
    described = load(script.COMMON / "settings.json")
    config = script.inference_config({})
    evaluation = script.evaluation_config()
    for name, one in described.items():
        components = {key: value for key, value in {**config, **evaluation}.items() if key not in described}
        components |= config if one["group"] != "evaluation" else {}
        blocks = json.dumps({key: value for key, value in components.items() if key not in ("optional", "+optional")})
        optional = bool(one.get("none")) and name != "pruner"
        assert (f'"@optional::{name}"' in blocks) is optional, name
        assert (f'"@{name}"' in blocks) is not optional or name == "bundle_root", name
    assert set(re.findall(r"@optional::(\w+)", json.dumps([config, evaluation]))) == {
        *config["optional"],
        *evaluation["+optional"],
    }


def test_change_of_the_common_files_reaches_every_bundle(script, copies, common, capsys):
    before = {name: load(copies / name / "configs" / "inference.json") for name in BUNDLES}
    change(common / "inference.json", inferer={"_target_": "SlidingWindowInferer"})
    described = load(common / "settings.json")
    added = {"new_setting": {"default": 5, "help": "a number", "group": "slices", "type": "integer"}}
    (common / "settings.json").write_text(json.dumps({**added, **described}), encoding="utf-8")
    assert script.main(["--bundles", str(copies), "--check"]) == 1
    assert capsys.readouterr().err.count("is not up to date") == 4
    assert all(load(copies / name / "configs" / "inference.json") == before[name] for name in BUNDLES)

    assert script.main(["--bundles", str(copies)]) == 0
    assert script.main(["--bundles", str(copies), "--check"]) == 0
    for name in BUNDLES:
        after = load(copies / name / "configs" / "inference.json")
        assert list(after)[:2] == ["imports", "new_setting"]
        assert after == {**before[name], "new_setting": 5, "inferer": {"_target_": "SlidingWindowInferer"}}
        own = {key for key in after if key not in script.inference_config({})}
        assert own == ({"family"} if name == "medpruner_phantom" else set())


def test_bundles_differ_only_in_what_they_state(script, repository):
    common = ConfigParser(script.inference_config({}))
    described = load(script.COMMON / "settings.json")
    for name in BUNDLES:
        stated = load(repository / "bundles" / f"{name}.json")
        config = ConfigParser(load(repository / "bundles" / name / "configs" / "inference.json"))
        metadata = ConfigParser(load(repository / "bundles" / name / "configs" / "metadata.json"))
        settings = {key: value for key, value in stated.items() if not re.match(r"\+?_meta_|preset_", key)}
        assert len(settings) <= 12
        for key, value in settings.items():
            under_budget = described.get(key, {}).get("under_budget")
            assert config[key] == (value if under_budget is None else script.budget_default(value, under_budget))
            assert common.get(key, "absent") != value, f"{name} states the common {key}"
        for key, value in stated.items():
            if key.startswith("preset_"):
                written = load(repository / "bundles" / name / "configs" / f"{key}.json")
                assert written == {**load(script.COMMON / f"{key}.json"), **value}
                assert all(load(script.COMMON / f"{key}.json").get(one, "absent") != value[one] for one in value)
            if key.startswith("_meta_::") and "{common}" not in str(value):
                assert metadata[key.removeprefix("_meta_::")] == value
        restored = script.inference_config({})
        rest = {key: value for key, value in config.get().items() if key not in ("prompt", *settings)}
        assert rest == {key: value for key, value in restored.items() if key not in ("prompt", *settings)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_setting", "there is no setting 'own_setting'"),
        ("prompt::no_field", "there is no id 'prompt::no_field'"),
        ("_meta_::nam", "there is no id 'nam'"),
        ("_meta_::network_data_format::input::image", "there is no id"),
        ("preset_quick", "there is no common preset_quick.json"),
    ],
)
def test_unused_id_is_refused(script, copies, capsys, name, message):
    before = load(copies / "medpruner_hulumed" / "configs" / "inference.json")
    change(copies / "medpruner_hulumed.json", **{name: 1})
    assert script.main(["--bundles", str(copies)]) == 1
    assert message in capsys.readouterr().err
    assert load(copies / "medpruner_hulumed" / "configs" / "inference.json") == before


@pytest.mark.parametrize("file", FILES)
def test_changed_file_is_written_again(script, copies, capsys, file):
    changed = copies / "medpruner_medgemma" / "configs" / file
    whole = changed.read_bytes()
    changed.write_bytes(whole.replace(b"{", b"{ ", 1))
    assert script.main(["--bundles", str(copies), "--check"]) == 1
    assert f"{changed} is not up to date" in capsys.readouterr().err
    assert script.main(["--bundles", str(copies)]) == 0
    assert changed.read_bytes() == whole


def test_the_configurations_of_evaluation_are_the_same(repository):
    same = ("preset_balanced.json", "preset_fast.json", "preset_paper.json")
    for name in ("evaluate.json", "multi_gpu_evaluate.json", *same, "sweep.json"):
        assert len({(repository / "bundles" / one / "configs" / name).read_bytes() for one in BUNDLES}) == 1


def test_a_preset_is_one_file(script, copies, common):
    (common / "preset_tiny.json").write_text(json.dumps({"preset": "tiny", "retention": 0.01}), encoding="utf-8")
    assert script.main(["--bundles", str(copies), "--check"]) == 1
    assert script.main(["--bundles", str(copies)]) == 0
    for name in BUNDLES:
        assert load(copies / name / "configs" / "preset_tiny.json") == {"preset": "tiny", "retention": 0.01}


def test_a_bundle_adds_its_own_values_to_a_preset(script, copies):
    changed = copies / "medpruner_qwen3vl.json"
    change(changed, preset_fast={"retention": 0.03, "prompt::instruction": "Be brief."})
    assert script.main(["--bundles", str(copies)]) == 0
    expected = {"preset": "fast", "retention": 0.03, "prompt::instruction": "Be brief."}
    assert load(copies / "medpruner_qwen3vl" / "configs" / "preset_fast.json") == expected
    assert load(copies / "medpruner_hulumed" / "configs" / "preset_fast.json")["retention"] == 0.05


def test_a_preset_that_sets_what_is_not_there_is_refused(script, copies, capsys):
    change(copies / "medpruner_qwen3vl.json", preset_fast={"prompt::preface": "Be brief."})
    assert script.main(["--bundles", str(copies)]) == 1
    assert "preset_fast: there is no id 'prompt::preface'" in capsys.readouterr().err


def test_presets_name_themselves_and_set_what_is_there(script):
    config = ConfigParser(script.inference_config({}))
    for path in script.COMMON.glob("preset_*.json"):
        values = load(path)
        assert values.pop("preset") == path.stem.removeprefix("preset_")
        assert all(name in config for name in values)


def test_configuration_has_every_field_of_every_pruner(script):
    config = script.inference_config({})
    assert list(config["pruners"]) == [*PRUNERS, "none"]
    assert config["pruners"]["none"] is None
    for name, pruner in PRUNERS.items():
        block = config["pruners"][name]
        assert list(block) == ["_target_", *(one.name for one in fields(pruner))]
        for one in fields(pruner):
            assert block[one.name] == (f"@{one.name}" if one.name in config else one.default)
    parser = ConfigParser(config)
    assert parser.get_parsed_content("pruners") == {
        **{name: pruner() for name, pruner in PRUNERS.items()},
        "none": None,
    }


@dataclass(frozen=True)
class ToyPruner(NucleusPruner):
    """A pruner with additional fields."""

    sharpness: float = 0.5
    blocks: tuple[int, ...] = field(default_factory=lambda: (1, 2))


def test_a_new_field_of_a_pruner_needs_nothing_else(script, monkeypatch):
    """The field is in the generated block, and can be set on the command line."""
    monkeypatch.setitem(PRUNERS, "toy", ToyPruner)
    config = script.inference_config({})
    block = config["pruners"]["toy"]
    assert (block["tau"], block["sharpness"], block["blocks"]) == ("@tau", 0.5, (1, 2))
    parser = ConfigParser(config)
    parser.update({"pruner": "toy", "tau": 0.25, "token_pruner::sharpness": 0.75})
    assert parser.get_parsed_content("token_pruner") == ToyPruner(tau=0.25, sharpness=0.75)


@pytest.mark.parametrize(("name", "expected"), [("none", None), ("nucleus", NucleusPruner(tau=0.9, min_tokens=2))])
def test_a_pruner_is_chosen_by_name(script, name, expected):
    parser = ConfigParser(script.inference_config({}))
    parser.update({"pruner": name, **({"token_pruner::min_tokens": 2} if expected else {})})
    assert parser.get_parsed_content("token_pruner") == expected


def test_a_field_without_a_default_is_refused(script, monkeypatch):
    @dataclass(frozen=True)
    class Bare:
        share: float

    monkeypatch.setitem(PRUNERS, "bare", Bare)
    with pytest.raises(ValueError, match="field 'share' of a pruner has no default"):
        script.inference_config({})
