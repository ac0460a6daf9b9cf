# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Check of a dataclass's values against the types that its fields declare."""

from __future__ import annotations

import typing
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any

from monai_medpruner.errors import SettingsError

__all__ = ["check_field_types"]

_NAMES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", NoneType: "None"}


def check_field_types(instance: Any) -> None:
    """Compare a dataclass's values with the types of its fields.

    Numbers, texts, truth values, ``Literal`` and unions of these are checked; a field of another type is not. A whole
    number may stand where a float is declared; a truth value is no number.

    Raises:
        SettingsError: a value has another type, or is none of a ``Literal``'s values.
    """
    types = typing.get_type_hints(type(instance))
    for field in fields(instance):
        value = getattr(instance, field.name)
        if not _fits(value, types[field.name]):
            expected = " or ".join(_described(types[field.name]))
            raise SettingsError(f"{field.name} must be {expected}, got {value!r}")


def _fits(value: Any, declared: Any) -> bool:
    origin = typing.get_origin(declared)
    if origin in (typing.Union, UnionType):
        return any(_fits(value, one) for one in typing.get_args(declared))
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in typing.get_args(declared))
    if declared is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return declared not in _NAMES or isinstance(value, declared)


def _described(declared: Any) -> list[str]:
    """The alternatives that a declared type allows, in words."""
    origin = typing.get_origin(declared)
    if origin in (typing.Union, UnionType):
        return [text for one in typing.get_args(declared) for text in _described(one)]
    if origin is typing.Literal:
        return [repr(one) for one in typing.get_args(declared)]
    return [_NAMES.get(declared, str(declared))]
