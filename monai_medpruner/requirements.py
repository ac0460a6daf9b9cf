# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Check the required packages of a bundle's metadata, which MONAI does not enforce."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from monai_medpruner.errors import PackageVersionError, SettingsError

__all__ = ["check_required_packages"]


def check_required_packages(versions: Mapping[str, str]) -> None:
    """Check that packages are installed in the required versions.

    MONAI reads ``required_packages_version`` of a bundle's metadata, but does not enforce it.

    Args:
        versions: distribution names, as in pip, and version specifiers: ``{"nibabel": ">=5.2"}``. A version without an
            operator is a minimum.

    Raises:
        PackageVersionError: packages are missing or have other versions; the message lists them and the command that
            installs them.
        SettingsError: a text is not a version specifier.
    """
    needed = {name: _specifier(name, text) for name, text in versions.items()}
    lacking = {name: found for name, one in needed.items() if (found := _found_instead(name, one))}
    if lacking:
        needs = "; ".join(f"{name} is {found}, expected {needed[name]}" for name, found in lacking.items())
        command = " ".join(["pip install", *(f'"{name}{needed[name]}"' for name in lacking)])
        raise PackageVersionError(
            f"required packages are missing or have other versions: {needs}. Install them with: {command}"
        )


def _specifier(name: str, text: str) -> SpecifierSet:
    try:
        if text and not text[0].isalnum():
            return SpecifierSet(text)
        # drops the local part of a version such as 2.13.0+cpu
        return SpecifierSet(f">={Version(text).public}")
    except (InvalidSpecifier, InvalidVersion, TypeError, AttributeError) as error:
        raise SettingsError(f"{name} must have a version specifier such as '>=1.2.0', got {text!r}") from error


def _found_instead(name: str, needed: SpecifierSet) -> str:
    """Return the installed version, or "not installed", if it does not match; empty if it does."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return "not installed"
    return "" if needed.contains(found, prereleases=True) else found
