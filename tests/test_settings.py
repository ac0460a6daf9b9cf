# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings as text, and the folders of the bundles."""

from __future__ import annotations

import pytest

from monai_medpruner.errors import SettingsError
from monai_medpruner.settings import bundle_folders, pruner_fields, setting_overrides, settings


@pytest.fixture
def read():
    """Return a function: settings as text -> overrides of a bundle."""
    return lambda given, bundle="medpruner_qwen3vl": setting_overrides(bundle_folders()[bundle], given)


def test_bundles(repository):
    assert set(bundle_folders().values()) == {path for path in (repository / "bundles").iterdir() if path.is_dir()}


def test_every_setting_says_what_it_does():
    for name, one in settings().items():
        assert one.name == name
        assert one.group in ("input", "slices", "budget", "tokens", "model", "limits", "output", "evaluation")
        assert one.type in ("text", "number", "integer", "boolean", "list")
        assert len(one.help) > 10


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gamma", "0.05", 0.05),
        ("gamma", "none", None),
        ("max_slices", "12", 12),
        ("max_slices", "none", None),
        ("pruner", "none", "none"),
        ("pruner", "random_tokens", "random_tokens"),
        ("assume_hu", "True", True),
        ("preserve_position_ids", "false", False),
        ("preserve_position_ids", "none", None),
        ("windows", "lung", "lung"),
        ("windows", "[[-160, 340]]", [[-160, 340]]),
        ("series_uid", "1.2", "1.2"),
        ("output_dir", "2024", "2024"),
        ("task", "closed", "closed"),
        ("device", "cpu", "cpu"),
        ("token_pruner::min_tokens", "2", 2),
        ("token_pruner::max_importance", "none", None),
        ("token_pruner::scope", "volume", "volume"),
        ("token_pruner::a_field_of_another_package", "0.5", 0.5),
    ],
)
def test_values(read, name, text, value):
    assert read({name: text}) == {name: value}


def test_a_model_of_ones_own_has_no_revision_of_the_bundle(read):
    assert read({"model": "tiny", "tau": None}) == {"model_id": "tiny", "revision": None}
    assert read({"model": "a/b", "revision": "c"}) == {"model_id": "a/b", "revision": "c"}


def test_settings_of_one_bundle(read):
    assert read({"family": "gemma3"}, "medpruner_phantom") == {"family": "gemma3"}
    with pytest.raises(SettingsError, match="there is no setting --family"):
        read({"family": "gemma3"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tau": "many"}, "--tau must be a number, got 'many'"),
        ({"tau": "none"}, "--tau must be a number, got 'none'"),
        ({"gamma": "low"}, "--gamma must be a number or none, got 'low'"),
        ({"max_slices": "2.5"}, "--max_slices must be a whole number or none"),
        ({"assume_hu": "1"}, "--assume_hu must be true or false"),
        ({"windows": "[[1, 'x']]"}, "--windows must be text or a JSON list"),
        ({"windows": '["$print(1)"]'}, "--windows must be text or a JSON list"),
        ({"windows": "[null"}, "--windows must be text or a JSON list"),
        ({"plane": "$print(1)"}, "--plane must not begin with"),
        ({"plane": "@gamma"}, "must not begin with"),
        ({"plane": "%file.json"}, "must not begin with"),
        ({"output_dir": "a#1"}, "must not contain #"),
        ({"model": "$print(1)"}, "--model must not begin with"),
        ({"token_pruner::scope": "$print(1)"}, "must not begin with"),
        ({"token_pruner::scope": '"$print(1)"'}, None),
        ({"token_pruner::_target_": "os.abort"}, "there is no setting --token_pruner::_target_"),
        ({"token_pruner::name": "none"}, "there is no setting --token_pruner::name"),
        ({"token_pruner::a::b": "1"}, "there is no setting"),
        ({"evaluator": "1"}, "there is no setting --evaluator"),
        ({"evaluator::decollate": "1"}, "there is no setting --evaluator::decollate"),
        ({"gama": "1"}, "did you mean --gamma"),
        ({"min_tokens": "1"}, "did you mean --token_pruner::min_tokens"),
    ],
    ids=str,
)
def test_what_is_refused(read, given, message):
    if message is None:
        assert read(given) == given  # a text in quotation marks, which no configuration executes
        return
    with pytest.raises(SettingsError, match=message):
        read(given)


def test_fields_of_pruners():
    assert pruner_fields()["nucleus"][:1] == ["contextual_ratio"]
    assert "none" not in pruner_fields()
