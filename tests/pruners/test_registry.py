# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruners by name, and from other packages through entry points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import (
    PRUNERS,
    NucleusPruner,
    TokenPruner,
    find_pruner,
    pruner_names,
    pruner_settings,
    select_pruner,
)
from monai_medpruner.testing import check_pruner

GROUP = "monai_medpruner.pruners"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, package: str = "toy_pruners") -> None:
    """Lay a package's metadata into a folder that Python searches."""
    metadata = folder / f"{package}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    monkeypatch.syspath_prepend(folder)


def test_a_pruner_from_another_package(tmp_path, monkeypatch):
    """Selected by its name, set by its fields, checked by the same function as our own."""
    source = Path(__file__).with_name("toy_pruner.py")
    (tmp_path / "somebody_elses.py").write_text(source.read_text())
    install(tmp_path, monkeypatch, "largest_norm = somebody_elses:LargestNormPruner")
    assert pruner_names() == sorted([*PRUNERS, "largest_norm"])
    pruner = select_pruner("largest_norm", {"nucleus": NucleusPruner(), "none": None}, count=2, block="none")
    assert type(pruner).__name__ == "LargestNormPruner"
    assert (pruner.count, pruner.block) == (2, None)
    assert find_pruner("largest_norm") is type(pruner)
    assert pruner_settings(pruner)["name"] == "largest_norm"
    check_pruner(pruner)
    check_pruner(replace(pruner, block=1, contextual_ratio=0.1))
    with pytest.raises(SettingsError, match=r"'largest_norm' has no field named tau; .*merge_space, count, block"):
        select_pruner("largest_norm", tau=0.5)
    with pytest.raises(SettingsError, match="count must be a whole number"):
        select_pruner("largest_norm", count="many")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Pruner", "ModuleNotFoundError"),
        ("pathlib:Pruner", "AttributeError"),
        ("raises_on_import:Pruner", "ZeroDivisionError"),
        ("pathlib:Path", "no subclass of TokenPruner"),
    ],
)
def test_broken_entry_points(tmp_path, monkeypatch, value, message):
    """Named in the error where they are asked for, and in nobody's way otherwise."""
    (tmp_path / "raises_on_import.py").write_text("1 / 0\n")
    install(tmp_path, monkeypatch, f"broken = {value}")
    with pytest.raises(SettingsError, match=f"entry point broken = '{value}' .*toy_pruners 1.2.*{message}"):
        select_pruner("broken")
    assert "broken" in pruner_names()
    assert select_pruner("nucleus") == NucleusPruner()


def test_entry_points_of_the_same_name(tmp_path, monkeypatch):
    """Two packages' are an error; one of this package comes first."""
    for package in ("one", "other"):
        (tmp_path / package).mkdir()
        install(tmp_path / package, monkeypatch, f"same = {package}:P", f"nucleus = {package}:P", package=package)
    with pytest.raises(SettingsError, match=r"several entry points .* 'same': one:P, other:P"):
        find_pruner("same")
    assert find_pruner("nucleus") is NucleusPruner


@pytest.mark.parametrize("name", ["Nucleus", "", "random "])
def test_unknown_name(name):
    with pytest.raises(
        SettingsError,
        match=r"average_pooling, .*local_contrast, .*nucleus, random_tokens, rare_tokens, visionzip, none",
    ):
        select_pruner(name)


# signals is a property of every pruner, not a field
@pytest.mark.parametrize("setting", ["taus", "keep_ratio", "signals"])
@pytest.mark.parametrize("made", [None, {"nucleus": NucleusPruner()}])
def test_a_field_that_the_pruner_has_not(setting, made):
    fields = "contextual_ratio, merge_space, tau, temperature, importance_scale, max_importance, min_tokens, scope"
    with pytest.raises(SettingsError, match=f"'nucleus' has no field named {setting}; its fields are: {fields}$"):
        select_pruner("nucleus", made, tau=0.5, **{setting: 1})


@pytest.mark.parametrize("name", ["none", None])
def test_no_pruning(name):
    assert select_pruner(name) is None
    assert select_pruner(name, {"nucleus": NucleusPruner(), "none": None}) is None
    with pytest.raises(SettingsError, match="'none' has no field named tau; its fields are: none"):
        select_pruner(name, tau=0.5)


def test_fields_are_replaced_in_the_pruner_that_is_made():
    made = {"nucleus": NucleusPruner(tau=0.4, max_importance=2.0), "none": None}
    assert select_pruner("nucleus", made) is not None
    assert select_pruner("nucleus", made) == made["nucleus"]
    assert select_pruner("nucleus", made, temperature=0.5) == NucleusPruner(
        0.05, tau=0.4, temperature=0.5, max_importance=2
    )
    assert select_pruner("nucleus", made, max_importance="none") == NucleusPruner(tau=0.4)
    assert select_pruner("average_pooling", made, pool=3) == PRUNERS["average_pooling"](pool=3)
    with pytest.raises(SettingsError, match="tau must lie in"):
        select_pruner("nucleus", made, tau=2)


def test_settings_that_select_the_pruner_again():
    assert pruner_settings(None) is None
    pruner = NucleusPruner(tau=0.3)
    settings = pruner_settings(pruner)
    assert select_pruner(**settings) == pruner
    assert settings["name"] == "nucleus"
    assert pruner_settings(EveryType())["name"] == "EveryType"


@dataclass(frozen=True)
class EveryType(TokenPruner):
    number: float = 1.0
    whole: int = 1
    flag: bool = False
    text: str = "a"
    choice: Literal["x", 2] = "x"
    maybe: float | None = None
    other: tuple[int, ...] = ()

    def select(self, score: torch.Tensor, slices: object) -> torch.Tensor:
        return score > 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("number", "0.5", "number must be a number, got '0.5'"),
        ("number", True, "number must be a number, got True"),
        ("number", None, "number must be a number, got None"),
        ("whole", 1.0, r"whole must be a whole number, got 1\.0"),
        ("whole", False, "whole must be a whole number"),
        ("flag", 1, "flag must be True or False, got 1"),
        ("text", 1, "text must be a text, got 1"),
        ("choice", "y", "choice must be 'x' or 2, got 'y'"),
        ("choice", True, "choice must be"),
        ("maybe", "none", "maybe must be a number or None, got 'none'"),
        ("contextual_ratio", "0.1", "contextual_ratio must be a number"),
    ],
)
def test_values_of_another_type(field, value, message):
    with pytest.raises(SettingsError, match=message):
        EveryType(**{field: value})


def test_values_of_the_declared_types():
    EveryType(number=2, whole=3, flag=True, text="", choice=2, maybe=0.5, other="unchecked")
