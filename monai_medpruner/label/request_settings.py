# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruning settings that a request may change. They are applied to objects and never enter a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from monai_medpruner.errors import RequestError, SettingsError
from monai_medpruner.label.parameters import ADJUSTABLE
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.transforms import InterSliceAnchorFilterd, with_threshold

__all__ = ["adjust", "adjustable"]


def adjustable(preprocessing: Any, pruner: TokenPruner | None) -> dict[str, float]:
    """Return the settings that requests may change, with the server's values.

    Args:
        preprocessing: the server's transforms.
        pruner: the server's pruner; None if tokens are not pruned.
    """
    values: dict[str, Any] = {"gamma": next(_thresholds(preprocessing), None)}
    if pruner is not None:
        values |= {field.name: getattr(pruner, field.name) for field in fields(pruner)}
    # leaves out gamma if the server does not filter slices
    return {name: float(values[name]) for name in ADJUSTABLE if isinstance(values.get(name), (int, float))}


def _thresholds(transform: Any) -> Iterator[float | None]:
    """Yield the thresholds of the slice filters in a transform and its children."""
    if isinstance(transform, InterSliceAnchorFilterd):
        yield transform.array_form.threshold
    for child in getattr(transform, "transforms", ()):
        yield from _thresholds(child)


def adjust(
    preprocessing: Any, pruner: TokenPruner | None, server: Mapping[str, float], given: Mapping[str, float]
) -> tuple[Any, TokenPruner | None]:
    """Return the transforms and the pruner for the settings of a request, leaving the server's unchanged.

    Args:
        preprocessing: the server's transforms.
        pruner: the server's pruner.
        server: settings that :func:`adjustable` returned.
        given: settings of the request.

    Raises:
        RequestError: the server has no such setting, or the value is outside its range.
    """
    if absent := sorted(set(given) - set(server)):
        raise RequestError(f"this server has no {absent[0]} to change")
    changed = {name: value for name, value in given.items() if value != server[name]}
    try:
        if "gamma" in changed:
            preprocessing = with_threshold(preprocessing, changed.pop("gamma"))
        return preprocessing, replace(pruner, **changed) if changed else pruner  # type: ignore[type-var]
    except SettingsError as error:
        raise RequestError(str(error)) from error
