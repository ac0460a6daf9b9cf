# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruners by name: those of this package, and those that other packages declare as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_medpruner.plugins import Plugins
from monai_medpruner.pruners.average_pooling import AveragePoolingPruner
from monai_medpruner.pruners.base import TokenPruner
from monai_medpruner.pruners.cdpruner import CDPrunerPruner
from monai_medpruner.pruners.divprune import DivPrunePruner
from monai_medpruner.pruners.hiprune import HiPrunePruner
from monai_medpruner.pruners.local_contrast import LocalContrastPruner
from monai_medpruner.pruners.medpruner_released import MedPrunerReleasedPruner
from monai_medpruner.pruners.nucleus import NucleusPruner
from monai_medpruner.pruners.random_tokens import RandomTokensPruner
from monai_medpruner.pruners.rare_tokens import RareTokensPruner
from monai_medpruner.pruners.visionzip import VisionZipPruner

__all__ = ["ENTRY_POINT_GROUP", "PRUNERS", "find_pruner", "pruner_names", "pruner_settings", "select_pruner"]

#: every pruner of this package by the name that configurations use; a new one adds its line here
PRUNERS: dict[str, type[TokenPruner]] = {
    "nucleus": NucleusPruner,
    "medpruner_released": MedPrunerReleasedPruner,
    "average_pooling": AveragePoolingPruner,
    "random_tokens": RandomTokensPruner,
    "rare_tokens": RareTokensPruner,
    "local_contrast": LocalContrastPruner,
    "visionzip": VisionZipPruner,
    "hiprune": HiPrunePruner,
    "divprune": DivPrunePruner,
    "cdpruner": CDPrunerPruner,
}

#: the entry-point group under which another package declares its pruners, ``name = "module:Class"``
ENTRY_POINT_GROUP = "monai_medpruner.pruners"

_PLUGINS = Plugins("pruner", TokenPruner, PRUNERS, ENTRY_POINT_GROUP, none=True)  # type: ignore[type-abstract]


def pruner_names() -> list[str]:
    """The names of all pruners, sorted; those of entry points are listed without being loaded."""
    return _PLUGINS.names()


def find_pruner(name: str) -> type[TokenPruner]:
    """Return the pruner of a name; one of this package comes before an entry point of the same name.

    Raises:
        SettingsError: no pruner has that name, several entry points have it, or the entry point cannot be loaded.
    """
    return _PLUGINS.find(name)


def select_pruner(name: str | None, pruners: Mapping[str, TokenPruner | None] | None = None, **fields_: Any) -> Any:
    """Choose a pruner by name and set some of its fields.

    This is what a configuration's ``token_pruner`` calls. The text "none" as a field's value, which is how a command
    line writes it, becomes None here and nowhere else.

    Args:
        name: one of :func:`pruner_names`; "none" or None for no pruning.
        pruners: pruners that are made already, by name; one that is not among them is made with its defaults.
        fields_: fields of the pruner's dataclass that are to have another value.

    Returns:
        The :class:`TokenPruner`, or None.

    Raises:
        SettingsError: no pruner has that name, this one has no such field, or a value lies outside its range.
    """
    if name is None or name == "none":
        _PLUGINS.check_fields("none", [], fields_)
        return None
    return _PLUGINS.select(name, pruners, fields_)


def pruner_settings(pruner: TokenPruner | None) -> dict[str, Any] | None:
    """A pruner's name and fields, as JSON holds them; None for no pruner.

    The name is the one that :func:`select_pruner` takes, or the class's where it has none.
    """
    return None if pruner is None else _PLUGINS.settings(pruner)
