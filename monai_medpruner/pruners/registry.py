# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruners by name: those of this package, and those that other packages declare as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.average_pooling import AveragePoolingPruner
from monai_medpruner.pruners.base import TokenPruner
from monai_medpruner.pruners.cdpruner import CDPrunerPruner
from monai_medpruner.pruners.divprune import DivPrunePruner
from monai_medpruner.pruners.hiprune import HiPrunePruner
from monai_medpruner.pruners.nucleus import NucleusPruner
from monai_medpruner.pruners.random_tokens import RandomTokensPruner
from monai_medpruner.pruners.visionzip import VisionZipPruner

__all__ = ["ENTRY_POINT_GROUP", "PRUNERS", "find_pruner", "pruner_names", "pruner_settings", "select_pruner"]

#: every pruner of this package by the name that configurations use; a new one adds its line here
PRUNERS: dict[str, type[TokenPruner]] = {
    "nucleus": NucleusPruner,
    "average_pooling": AveragePoolingPruner,
    "random_tokens": RandomTokensPruner,
    "visionzip": VisionZipPruner,
    "hiprune": HiPrunePruner,
    "divprune": DivPrunePruner,
    "cdpruner": CDPrunerPruner,
}

#: the entry-point group under which another package declares its pruners, ``name = "module:Class"``
ENTRY_POINT_GROUP = "monai_medpruner.pruners"


def pruner_names() -> list[str]:
    """The names of all pruners, sorted; those of entry points are listed without being loaded."""
    return sorted({*PRUNERS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def find_pruner(name: str) -> type[TokenPruner]:
    """Return the pruner of a name; one of this package comes before an entry point of the same name.

    Raises:
        SettingsError: no pruner has that name, several entry points have it, or the entry point cannot be loaded.
    """
    if name in PRUNERS:
        return PRUNERS[name]
    points = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
    if not points:
        raise SettingsError(f"no pruner is named {name!r}; there are: {', '.join(pruner_names())}, none")
    if len({point.value for point in points}) > 1:
        raise SettingsError(
            f"several entry points of the group {ENTRY_POINT_GROUP} are named {name!r}: "
            f"{', '.join(sorted(point.value for point in points))}. Uninstall all but one of their packages"
        )
    return _loaded(points[0])


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
    values: dict[str, Any] = {field: None if value == "none" else value for field, value in fields_.items()}
    if name is None or name == "none":
        _check_fields("none", [], values)
        return None
    made = (pruners or {}).get(name)
    pruner: Any = type(made) if made is not None else find_pruner(name)
    _check_fields(name, [field.name for field in fields(pruner) if field.init], values)
    return pruner(**values) if made is None else pruner(**{**_field_values(made), **values})


def pruner_settings(pruner: TokenPruner | None) -> dict[str, Any] | None:
    """A pruner's name and fields, as JSON holds them; None for no pruner.

    The name is the one that :func:`select_pruner` takes, or the class's where it has none.
    """
    if pruner is None:
        return None
    kind = type(pruner)
    where = f"{kind.__module__}:{kind.__qualname__}"
    names = {point.value: point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    names |= {f"{one.__module__}:{one.__qualname__}": name for name, one in PRUNERS.items()}
    return {"name": names.get(where, kind.__name__), **asdict(pruner)}


def _field_values(pruner: TokenPruner) -> dict[str, Any]:
    return {field.name: getattr(pruner, field.name) for field in fields(pruner) if field.init}


def _check_fields(name: str, known: list[str], given: Mapping[str, Any]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise SettingsError(
            f"the pruner {name!r} has no field named {', '.join(unknown)}; its fields are: {', '.join(known) or 'none'}"
        )


def _loaded(point: EntryPoint) -> type[TokenPruner]:
    """The class that an entry point names."""
    where = f"the entry point {point.name} = {point.value!r} of the group {ENTRY_POINT_GROUP}"
    if point.dist is not None:
        where += f" (package {point.dist.name} {point.dist.version})"
    try:
        pruner = point.load()
    except Exception as error:  # whatever its module raises while it is imported
        raise SettingsError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(pruner, type) and issubclass(pruner, TokenPruner)):
        raise SettingsError(f"{where} is no subclass of TokenPruner, but {pruner!r}")
    return pruner
