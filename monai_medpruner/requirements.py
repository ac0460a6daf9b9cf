# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The check that MONAI leaves to the bundle: are the packages there that its metadata asks for?"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

from monai_medpruner.errors import PackageVersionError, SettingsError

__all__ = ["check_required_packages"]


def check_required_packages(versions: Mapping[str, str]) -> None:
    """Check that packages are installed in the versions asked for, or newer ones.

    MONAI reads ``required_packages_version`` of a bundle's metadata, but never enforces it.

    Args:
        versions: distribution names, as pip knows them, and their lowest versions: ``{"nibabel": "5.2"}``.

    Raises:
        PackageVersionError: packages are missing or too old; the message names all of them and the command that helps.
        SettingsError: a lowest version is not a version number.
    """
    lacking = {name: found for name, lowest in versions.items() if (found := _found_instead(name, lowest))}
    if lacking:
        needs = "; ".join(f"{name} is {found}, needed is {versions[name]} or newer" for name, found in lacking.items())
        command = " ".join(["pip install", *(f'"{name}>={versions[name]}"' for name in lacking)])
        raise PackageVersionError(f"required packages are missing or too old: {needs}. Install them with: {command}")


def _found_instead(name: str, lowest: str) -> str:
    """What stands in place of the package asked for; empty where it is there."""
    try:
        needed = Version(lowest)
    except (InvalidVersion, TypeError) as error:
        raise SettingsError(f"{name} needs a version number such as '1.2.0', got {lowest!r}") from error
    try:
        found = version(name)
    except PackageNotFoundError:
        return "not installed"
    return "" if Version(found) >= needed else found
