# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a transform is and how it is set, as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from inspect import Parameter, signature
from math import isfinite
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from monai_medpruner.transforms.each_key import EachKeyd
from monai_medpruner.transforms.slice_rules.base import SliceRule
from monai_medpruner.transforms.slice_rules.registry import slice_rule_settings

__all__ = ["describe_stage", "describe_transform"]

_MISSING = object()
_NO_ARGUMENTS = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def describe_transform(transform: Callable) -> dict[str, Any] | list[Any]:
    """Describe a transform by its own fields, so that a record of them cannot differ from what ran.

    Args:
        transform: any transform or function.

    Returns:
        - for ``monai.transforms.Compose`` itself, the list of its transforms' descriptions;
        - for a stage (:class:`~.timed_compose.TimedCompose`), ``{"stage": name, "transforms": [...]}``;
        - for any other, ``{"name": class, "arguments": {...}}``: the constructor's arguments, with the values that the
          object holds under their names. A dictionary form of this package has the name of its array form. An argument
          that a transform of another package does not keep under its name is left out.

        A transform that stands for another one, with the same result, has that one under ``described_as`` and is
        described by it.

        Values that JSON cannot hold are told by the name of their class.
    """
    if (other := getattr(transform, "described_as", None)) is not None:
        return describe_transform(other)
    if type(transform) is Compose:
        return [describe_transform(child) for child in transform.transforms]
    stage = getattr(transform, "stage", None)
    if isinstance(transform, Compose) and isinstance(stage, str):
        return describe_stage(stage, transform.transforms)
    if hasattr(transform, "__qualname__"):  # a function, method or class; objects have none
        return {"name": transform.__qualname__, "arguments": {}}
    named = transform.array_form if isinstance(transform, EachKeyd) else transform
    return {"name": type(named).__name__, "arguments": _arguments(transform)}


def describe_stage(stage: str, transforms: tuple[Callable, ...]) -> dict[str, Any]:
    """Describe a stage of work.

    Args:
        stage: its name, e.g. "load".
        transforms: what it is made of.
    """
    return {"stage": stage, "transforms": [describe_transform(child) for child in transforms]}


def _arguments(transform: Callable) -> dict[str, Any]:
    """The constructor's arguments as the object, or else its array form, holds them."""
    holders = [transform, transform.array_form] if isinstance(transform, EachKeyd) else [transform]
    arguments = {}
    for name, parameter in _parameters(type(transform)).items():
        values = (getattr(holder, name, _MISSING) for holder in holders)
        value = next((value for value in values if value is not _MISSING), _MISSING)
        if value is not _MISSING and parameter.kind not in _NO_ARGUMENTS:
            arguments[name] = _plain(value)
    return arguments


def _parameters(constructor: type) -> Mapping[str, Parameter]:
    """Parameters of a constructor; none where it is not written in Python and so cannot be asked."""
    try:
        return signature(constructor).parameters
    except ValueError:
        return {}


def _plain(value: Any) -> Any:
    """``value`` as JSON holds it."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return _plain(value.tolist())
    if isinstance(value, SliceRule):
        return _plain(slice_rule_settings(value))
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(entry) for entry in value]
    if isinstance(value, torch.dtype | torch.device | slice):
        return str(value)
    if callable(value):
        return describe_transform(value)
    return type(value).__name__
