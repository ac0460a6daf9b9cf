# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Tokens to fewer tokens: pure tensor code that knows neither MONAI nor transformers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from monai_medpruner.errors import SettingsError

from .attention import attention_received
from .average_pooling import AveragePoolingPruner
from .base import PrunedTokens, SliceTokens, TokenPruner
from .merging import merge_contextual
from .nucleus import NucleusPruner, nucleus
from .random_tokens import RandomTokensPruner

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
