# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The check of a bundle's required packages."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from monai_medpruner.errors import PackageVersionError, SettingsError
from monai_medpruner.requirements import check_required_packages

INSTALLED = {"monai": "1.6.1", "torch": "2.13.0+cpu", "transformers": "5.18.0", "itk": "5.10", "tool": "2.0rc1"}


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    """A machine that holds INSTALLED and nothing else."""

    def version(name):
        if name not in INSTALLED:
            raise importlib.metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr("monai_medpruner.requirements.version", version)


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {"monai": "1.6.1"},
        {"monai": "1.6"},
        {"torch": "2.13.0"},  # a local build is the version it was built from
        {"itk": "5.4"},  # 5.10 is newer, though not as text
        {"monai": "1.0", "torch": "2.6", "transformers": "5.18"},
        {"monai": ">=1.6.1", "torch": ">=2.6", "itk": ">=5.4,<6"},
        {"torch": "==2.13.0"},
    ],
    ids=str,
)
def test_what_is_there_passes(versions):
    assert check_required_packages(versions) is None


@pytest.mark.parametrize(
    ("name", "lowest", "found"),
    [
        ("monai", "1.6.2", "1.6.1"),
        ("transformers", "5.18.1", "5.18.0"),
        ("itk", "5.10.1", "5.10"),
        ("tool", "2.0", "2.0rc1"),  # a candidate is older than its release
        ("no-such-tool", "0.1", "not installed"),
    ],
)
def test_what_lacks_is_refused(name, lowest, found):
    with pytest.raises(PackageVersionError) as raised:
        check_required_packages({"torch": "2.6", name: lowest})
    message = str(raised.value)
    assert f"{name} is {found}, expected {SpecifierSet(f'>={lowest}')}" in message
    assert message.endswith(f'pip install "{name}{SpecifierSet(f">={lowest}")}"')
    assert "torch" not in message


def test_an_upper_bound():
    with pytest.raises(PackageVersionError, match=r'itk is 5\.10, expected <5\.10.* pip install "itk<5\.10"$'):
        check_required_packages({"itk": "<5.10"})


def test_all_that_lack_are_named_at_once():
    with pytest.raises(PackageVersionError, match=r'pip install "monai>=2\.0" "no-such-tool>=1\.0"$') as raised:
        check_required_packages({"monai": "2.0", "itk": "5.4", "no-such-tool": "1.0"})
    assert isinstance(raised.value, ImportError)


@pytest.mark.parametrize("lowest", ["", "newest", ">=", "~1", None, 5.4, "5.10,<6"])
def test_what_is_no_version_is_refused(lowest):
    with pytest.raises(SettingsError, match="monai must have a version specifier"):
        check_required_packages({"monai": lowest})


def test_real_packages(monkeypatch):
    """Against what is installed, whatever that is."""
    monkeypatch.undo()
    installed = {name: importlib.metadata.version(name) for name in ("monai", "torch", "pytest")}
    check_required_packages(installed)
    with pytest.raises(PackageVersionError, match=f"pytest is {installed['pytest']}"):
        check_required_packages({**installed, "pytest": "999"})


#: the lowest versions without a vulnerability that concerns this package, each with the first of a newer line
SECURITY_FLOOR = {"monai": ["1.6.1"], "transformers": ["5.3"], "torch": ["2.6"], "pydicom": ["2.4.5", "3.0.2"]}


def test_security_floor(repository):
    """What is allowed, what is tested, and what is installed lies at or above it."""
    tomllib = pytest.importorskip("tomllib", reason="the standard library reads TOML from Python 3.11 on")
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = [Requirement(one) for one in project["dependencies"]]
    allowed += [Requirement(one) for group in project["optional-dependencies"].values() for one in group]
    pinned = [
        Requirement(line.split("#")[0].strip())
        for name in ("constraints.txt", "constraints-label.txt")
        for line in (repository / name).read_text(encoding="utf-8").splitlines()
        if line.split("#")[0].strip() and not line.startswith("-")
    ]
    for name, floors in SECURITY_FLOOR.items():
        for one in allowed:
            if one.name == name:
                lowest = min(Version(part.version) for part in one.specifier if part.operator in (">=", "=="))
                assert lowest >= Version(floors[0]), one
        versions = [Version(part.version) for one in pinned if one.name == name for part in one.specifier]
        assert versions or name == "torch", name
        for version in [*versions, Version(importlib.metadata.version(name))]:
            floor = max((Version(one) for one in floors if Version(one).major <= version.major), default=None)
            assert floor is not None, (name, version)
            assert version >= floor, (name, version)
