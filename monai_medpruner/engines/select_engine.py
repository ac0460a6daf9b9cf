# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The choice of a language engine by a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from monai_medpruner.engines.language_engine import LanguageEngine
from monai_medpruner.errors import SettingsError

__all__ = ["select_engine"]


def select_engine(name: str, engines: Mapping[str, Callable[[], LanguageEngine]]) -> LanguageEngine:
    """Return an engine by its name.

    Args:
        name: a name among those of ``engines``.
        engines: name -> function that makes the engine.

    Raises:
        SettingsError: there is no engine of this name.
    """
    if name not in engines:
        raise SettingsError(f"there is no engine {name!r}; there are: {', '.join(sorted(engines))}")
    return engines[name]()
