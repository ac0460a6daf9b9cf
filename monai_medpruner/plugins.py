# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Classes by name: those of this package, and those that other packages declare as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from monai_medpruner.errors import SettingsError

__all__ = ["Plugins"]

Base = TypeVar("Base")


@dataclass(frozen=True)
class Plugins(Generic[Base]):
    """The dataclasses of one kind, e.g. pruners, by the name that configurations use.

    Args:
        kind: what they are, in error messages, e.g. "pruner".
        base: class that all of them derive from.
        own: those of this package by name.
        group: entry-point group under which another package declares its own, ``name = "module:Class"``.
        none: whether the name "none" is offered, for doing without.
    """

    kind: str
    base: type[Base]
    own: Mapping[str, type[Base]]
    group: str
    none: bool = False

    def names(self) -> list[str]:
        """All names, sorted; those of entry points are listed without being loaded."""
        return sorted({*self.own, *(point.name for point in entry_points(group=self.group))})

    def find(self, name: str) -> type[Base]:
        """Return the class of a name; one of this package comes before an entry point of the same name.

        Raises:
            SettingsError: there is no such name, several entry points have it, or the entry point cannot be loaded.
        """
        if name in self.own:
            return self.own[name]
        points = list(entry_points(group=self.group, name=name))
        if not points:
            there = ", ".join([*self.names(), *(["none"] if self.none else [])])
            raise SettingsError(f"no {self.kind} is named {name!r}; there are: {there}")
        if len({point.value for point in points}) > 1:
            raise SettingsError(
                f"several entry points of the group {self.group} are named {name!r}: "
                f"{', '.join(sorted(point.value for point in points))}. Uninstall all but one of their packages"
            )
        return self._loaded(points[0])

    def select(self, name: str, made: Mapping[str, Base | None] | None, values: Mapping[str, Any]) -> Base:
        """Make an instance by name, or take the one that is made, and set some of its fields.

        The text "none" as a field's value, which is how a command line writes it, becomes None.

        Args:
            name: one of :meth:`names`.
            made: instances that are made already, by name; one that is not among them is made with its defaults.
            values: fields of the dataclass that are to have another value.

        Raises:
            SettingsError: there is no such name, this one has no such field, or a value lies outside its range.
        """
        given = {field: None if value == "none" else value for field, value in values.items()}
        before = (made or {}).get(name)
        kind: Any = self.find(name) if before is None else type(before)
        known = [field.name for field in fields(kind) if field.init]
        self.check_fields(name, known, given)
        return kind(**({} if before is None else {field: getattr(before, field) for field in known}) | given)

    def check_fields(self, name: str, known: list[str], given: Mapping[str, Any]) -> None:
        """Raise SettingsError where a field is given that ``name`` has not."""
        if unknown := sorted(set(given) - set(known)):
            raise SettingsError(
                f"the {self.kind} {name!r} has no field named {', '.join(unknown)}; its fields are: "
                f"{', '.join(known) or 'none'}"
            )

    def settings(self, instance: Base) -> dict[str, Any]:
        """Name and fields of an instance, as :meth:`select` takes them; the class's name where it is not registered."""
        kind = type(instance)
        names = {point.value: point.name for point in entry_points(group=self.group)}
        names |= {f"{one.__module__}:{one.__qualname__}": name for name, one in self.own.items()}
        values: Any = instance
        return {"name": names.get(f"{kind.__module__}:{kind.__qualname__}", kind.__name__), **asdict(values)}

    def _loaded(self, point: EntryPoint) -> type[Base]:
        """The class that an entry point names."""
        where = f"the entry point {point.name} = {point.value!r} of the group {self.group}"
        if point.dist is not None:
            where += f" (package {point.dist.name} {point.dist.version})"
        try:
            loaded = point.load()
        except Exception as error:  # whatever its module raises while it is imported
            raise SettingsError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, self.base)):
            raise SettingsError(f"{where} is no subclass of {self.base.__name__}, but {loaded!r}")
        return loaded
