# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A dataset that continues when a volume cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.data import Dataset

from monai_medpruner.errors import describe_error, ends_run

__all__ = ["GuardedDataset"]


class GuardedDataset(Dataset):
    """MONAI's ``Dataset``, except that an item whose transform fails carries its error.

    Indexing returns the transformed item. If a transform raises, it returns the untransformed item with the class name
    and message of the error, a tuple of two texts, under "error".

    Args:
        data: dictionaries.
        transform: as in ``Dataset``.
        fail_fast: raise the first error instead. An error that concerns the whole run, such as a missing checkpoint, is
            always raised.
    """

    def __init__(self, data: Sequence[Any], transform: Callable | None = None, fail_fast: bool = False) -> None:
        super().__init__(data, transform)
        self.fail_fast = fail_fast

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            if self.fail_fast or ends_run(error):
                raise
            return {**self.data[index], "error": describe_error(error)}
