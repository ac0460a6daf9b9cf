# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A composition that tells how long it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from monai.transforms import Compose

__all__ = ["TimedCompose"]


class TimedCompose(Compose):
    """MONAI's ``Compose`` for dictionaries, which adds its duration to the dictionary.

    Args:
        stage: name of the stage of work that the transforms make up, e.g. "load".
        transforms: as in ``Compose``.

    Returns of a call: the transformed dictionary, with the seconds spent under ``["seconds"][stage]``; stages that are
    already there stay.
    """

    def __init__(self, stage: str, transforms: Sequence[Callable] | Callable | None = None) -> None:
        super().__init__(transforms)
        self.stage = stage

    def __call__(self, input_: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Apply the transforms to a dictionary."""
        start = perf_counter()
        output = super().__call__(input_, *args, **kwargs)
        output["seconds"] = {**output.get("seconds", {}), self.stage: perf_counter() - start}
        return output
