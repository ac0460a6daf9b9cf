# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A composition that tells what it did and how long it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose

from monai_medpruner.data.volume_meta import PerVolumeList
from monai_medpruner.transforms.describe import describe_stage

__all__ = ["TimedCompose"]


class TimedCompose(Compose):
    """MONAI's ``Compose`` for dictionaries, which records what it did and how long it took.

    To the metadata of every MetaTensor in the dictionary a call adds one entry to each of two lists:
    ``meta["preprocessing"]``, the description of its transforms (:func:`~.describe.describe_transform`), and
    ``meta["seconds"]``, the pair of the stage's name and the seconds that it took. Stages that are already there stay.
    ``inverse`` takes both entries away again.

    Args:
        stage: name of the stage of work that the transforms make up, e.g. "load".
        transforms: as in ``Compose``.
    """

    def __init__(self, stage: str, transforms: Sequence[Callable] | Callable | None = None) -> None:
        super().__init__(transforms)
        self.stage = stage

    def __call__(
        self,
        input_: Mapping[str, Any],
        start: int = 0,
        end: int | None = None,
        threading: bool = False,
        lazy: bool | None = None,
    ) -> dict[str, Any]:
        """Apply the transforms to a dictionary; other arguments are those of ``Compose``."""
        began = perf_counter()
        output = dict(super().__call__(input_, start, end, threading, lazy))
        description = describe_stage(self.stage, self.transforms[start:end])
        spent = perf_counter() - began
        for key, value in output.items():
            if isinstance(value, MetaTensor):
                stages = [*value.meta.get("preprocessing", ()), description]
                output[key] = _with_stages(value, stages, [*value.meta.get("seconds", ()), [self.stage, spent]])
        return output

    def inverse(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Undo the transforms, last one first, and take this stage out of the metadata."""
        output = dict(super().inverse(data))
        for key, value in output.items():
            stages = value.meta.get("preprocessing") if isinstance(value, MetaTensor) else None
            if stages and stages[-1]["stage"] == self.stage:
                output[key] = _with_stages(value, stages[:-1], value.meta["seconds"][:-1])
        return output


def _with_stages(
    volume: MetaTensor, stages: Sequence[Mapping[str, Any]], seconds: Sequence[Sequence[Any]]
) -> MetaTensor:
    """The same voxels with other stages; ``volume`` may be the caller's own, so it is left as it is."""
    out: MetaTensor = MetaTensor(volume.as_tensor()).copy_meta_from(volume)
    for name, entries in (("preprocessing", stages), ("seconds", seconds)):
        out.meta.pop(name, None)
        if entries:
            out.meta[name] = PerVolumeList(entries)
    return out
