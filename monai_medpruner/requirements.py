# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The check that MONAI leaves to the bundle: are the packages there that its metadata asks for?"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from monai_medpruner.errors import PackageVersionError, SettingsError

__all__ = ["check_required_packages"]


def check_required_packages(versions: Mapping[str, str]) -> None:
    """Check that packages are installed in the versions asked for.

    MONAI reads ``required_packages_version`` of a bundle's metadata, but never enforces it.

    Args:
        versions: distribution names, as pip knows them, and their version specifiers: ``{"nibabel": ">=5.2"}``. A bare
            version is the lowest one.

    Raises:
        PackageVersionError: packages are missing or have other versions; the message names all of them and the command
            that helps.
        SettingsError: a text is no version specifier.
    """
    needed = {name: _specifier(name, text) for name, text in versions.items()}
    lacking = {name: found for name, one in needed.items() if (found := _found_instead(name, one))}
    if lacking:
        needs = "; ".join(f"{name} is {found}, needed is {needed[name]}" for name, found in lacking.items())
        command = " ".join(["pip install", *(f'"{name}{needed[name]}"' for name in lacking)])
        raise PackageVersionError(
            f"required packages are missing or have other versions: {needs}. Install them with: {command}"
        )


def _specifier(name: str, text: str) -> SpecifierSet:
    try:
        if text and not text[0].isalnum():
            return SpecifierSet(text)
        # of a local build, such as 2.13.0+cpu, the version it was built from
        return SpecifierSet(f">={Version(text).public}")
    except (InvalidSpecifier, InvalidVersion, TypeError, AttributeError) as error:
        raise SettingsError(f"{name} needs a version specifier such as '>=1.2.0', got {text!r}") from error


def _found_instead(name: str, needed: SpecifierSet) -> str:
    """What stands in place of the package asked for; empty where it is there."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return "not installed"
    return "" if needed.contains(found, prereleases=True) else found
