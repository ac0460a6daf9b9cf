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

    A call returns the transformed dictionary with the seconds spent under ``["seconds"][stage]``. To
    ``meta["preprocessing"]`` of every MetaTensor in it, a list with one entry a stage, it adds the description of its
    transforms (:func:`~.describe.describe_transform`). Stages that are already there stay. ``inverse`` takes the
    description away again.

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
        for key, value in output.items():
            if isinstance(value, MetaTensor):
                output[key] = _with_stages(value, [*value.meta.get("preprocessing", ()), description])
        output["seconds"] = {**output.get("seconds", {}), self.stage: perf_counter() - began}
        return output

    def inverse(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Undo the transforms, last one first, and take this stage out of the metadata."""
        output = dict(super().inverse(data))
        for key, value in output.items():
            stages = value.meta.get("preprocessing") if isinstance(value, MetaTensor) else None
            if stages and stages[-1]["stage"] == self.stage:
                output[key] = _with_stages(value, stages[:-1])
        return output


def _with_stages(volume: MetaTensor, stages: Sequence[Mapping[str, Any]]) -> MetaTensor:
    """The same voxels with other stages; ``volume`` may be the caller's own, so it is left as it is."""
    out: MetaTensor = MetaTensor(volume.as_tensor()).copy_meta_from(volume)
    out.meta.pop("preprocessing", None)
    if stages:
        out.meta["preprocessing"] = PerVolumeList(stages)
    return out
