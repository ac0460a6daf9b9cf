# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Versions of the packages that results depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

__all__ = ["package_versions"]

_PACKAGES = ("monai-medpruner", "monai", "torch", "transformers", "numpy")


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
