# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The bases of the dictionary forms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform

from monai_medpruner.errors import SettingsError

__all__ = ["EachKeyd", "ReferenceKeyd"]


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


class ReferenceKeyd(EachKeyd, InvertibleTransform):
    """Base of the dictionary forms that decide on one key and treat every key alike.

    Args:
        keys: volumes of equal size, e.g. image and label.
        array_form: decides, applies the decision, and inverts it.
        ref_key: key on which is decided; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys; the reference key may be absent only where all are.

    Raises:
        SettingsError: ``ref_key`` is not one of ``keys``.
    """

    array_form: Any

    def __init__(
        self,
        keys: KeysCollection,
        array_form: Any,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, array_form, allow_missing_keys)
        if ref_key is not None and ref_key not in self.keys:
            raise SettingsError(f"ref_key={ref_key!r} is not one of keys={self.keys}.")
        self.ref_key = self.keys[0] if ref_key is None else ref_key

    def present_keys(self, data: Mapping[Hashable, Any]) -> list[Hashable]:
        """Return the keys that ``data`` has, the reference key among them; none where all are absent.

        Raises:
            KeyError: only the reference key is absent, or a key is absent that may not be.
        """
        present = list(self.key_iterator(dict(data)))
        if present and self.ref_key not in data:
            raise KeyError(f"{type(self).__name__}: the reference key {self.ref_key!r} is missing.")
        return present

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the array form on every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.array_form.inverse(d[key])
        return d
