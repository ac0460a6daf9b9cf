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
