# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A data set in which a volume that cannot be read does not end the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.data import Dataset

from monai_medpruner.errors import describe_error

__all__ = ["GuardedDataset"]


class GuardedDataset(Dataset):
    """MONAI's ``Dataset``, whose items hold their error where a transform failed.

    Args:
        data: dictionaries.
        transform: as in ``Dataset``.
        fail_fast: raise the first error instead.

    Returns of an index: the transformed item; or, where a transform raised, the item as it was given, with the error's
    class and message (two texts) under "error".
    """

    def __init__(self, data: Sequence[Any], transform: Callable | None = None, fail_fast: bool = False) -> None:
        super().__init__(data, transform)
        self.fail_fast = fail_fast

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            if self.fail_fast:
                raise
            return {**self.data[index], "error": describe_error(error)}
