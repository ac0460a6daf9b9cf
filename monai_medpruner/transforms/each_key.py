# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The base of the dictionary forms that treat every key on its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["EachKeyd"]


class EachKeyd(MapTransform):
    """Apply an array form to every key.

    Args:
        keys: keys whose values are transformed.
        array_form: applied to each value.
        allow_missing_keys: skip absent keys.
    """

    def __init__(self, keys: KeysCollection, array_form: Callable, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.array_form = array_form

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with every key transformed; see the array form for the errors."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.array_form(d[key])
        return d
