# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Tokens to fewer tokens: pure tensor code that knows neither MONAI nor transformers."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.attention import attention_received
from monai_medpruner.pruners.average_pooling import AveragePoolingPruner
from monai_medpruner.pruners.base import PrunedTokens, SliceTokens, TokenPruner
from monai_medpruner.pruners.merging import merge_contextual
from monai_medpruner.pruners.nucleus import NucleusPruner, nucleus
from monai_medpruner.pruners.random_tokens import RandomTokensPruner

__all__ = [
    "PRUNERS",
    "AveragePoolingPruner",
    "NucleusPruner",
    "PrunedTokens",
    "RandomTokensPruner",
    "SliceTokens",
    "TokenPruner",
    "attention_received",
    "build_pruner",
    "merge_contextual",
    "nucleus",
    "pruner_settings",
]

#: every pruner by the name that configurations use; a new one adds its line here
PRUNERS: dict[str, type[TokenPruner]] = {
    "nucleus": NucleusPruner,
    "average_pooling": AveragePoolingPruner,
    "random_tokens": RandomTokensPruner,
}


def build_pruner(name: str | None, **settings: Any) -> TokenPruner | None:
    """Build a pruner from its name and settings.

    Args:
        name: one of :data:`PRUNERS`; "none" or None for no pruning.
        settings: fields of the pruners' dataclasses; those that belong to other methods alone are left out, so that one
            set of settings serves every method.

    Returns:
        The pruner, or None.

    Raises:
        SettingsError: no pruner has that name, no pruner has that setting, or it lies outside its range.
    """
    known = {field.name for pruner in PRUNERS.values() for field in fields(pruner)}
    if unknown := sorted(set(settings) - known):
        raise SettingsError(
            f"no pruner has a setting named {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
        )
    if name is None or name == "none":
        return None
    if name not in PRUNERS:
        raise SettingsError(f"no pruner is named {name!r}; there are: {', '.join(sorted(PRUNERS))}, none")
    own = {field.name for field in fields(PRUNERS[name])}
    return PRUNERS[name](**{setting: value for setting, value in settings.items() if setting in own})


def pruner_settings(pruner: TokenPruner | None) -> dict[str, Any] | None:
    """A pruner's name and fields, as JSON holds them; None for no pruner."""
    if pruner is None:
        return None
    names = {kind: name for name, kind in PRUNERS.items()}
    return {"name": names.get(type(pruner), type(pruner).__name__), **asdict(pruner)}
