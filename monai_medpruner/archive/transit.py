# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What travels from stage to stage, and how little of it there is.

Between reading and encoding, the slices that the filters kept travel as 8-bit gray levels: a quarter of float32, and
all that the encoder takes, since it makes these levels of a volume first. Between encoding and answering, the rows of
the kept tokens travel. What comes back are result lines and records. The studies' files never travel: each reader
opens them itself.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from monai_medpruner.networks.slice_images import checked_voxels, slice_levels

__all__ = ["StudyInTransit", "levels_of_volume", "volume_of_levels"]

_LEVELS = "levels"
_REST = "rest"


@dataclass(frozen=True, eq=False)
class StudyInTransit:
    """A study on its way through the stages, with the questions about it.

    Args:
        items: the questions: ``id``, ``image``, ``question``, ``prompt``.
        levels: gray levels of the kept slices, uint8 ``(K, C, H, W)``; None but between reading and encoding.
        meta: the volume's metadata, where there are levels.
        studies: bytes of the encoded study, or of one per question for a pruner that needs it; in the place of one that
            could not be pruned for its question, class and message of the error.
        error: class and message of what went wrong with the study.
        ends_run: the error that ends the whole run.
        lines: result lines, at the end.
        records: name and content of the records, at the end.
    """

    items: list[dict[str, Any]]
    levels: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    studies: tuple[bytes | tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None
    ends_run: Exception | None = None
    lines: tuple[dict[str, Any], ...] = ()
    records: Mapping[str, bytes] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the study as a row of a Ray data set; the levels are an array of their own, which is not copied."""
        levels = np.empty(0, np.uint8) if self.levels is None else self.levels
        rest = {name: value for name, value in vars(self).items() if name != _LEVELS}
        return {_LEVELS: levels, _REST: pickle.dumps(rest)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StudyInTransit:
        """Make a study of what :meth:`to_row` returned. Only rows of one's own run are read: they are pickled."""
        levels = row[_LEVELS]
        return cls(levels=levels if levels.size else None, **pickle.loads(row[_REST]))


def levels_of_volume(volume: torch.Tensor) -> np.ndarray:
    """Return the gray levels of a volume's slices, uint8 ``(K, C, H, W)``.

    Args:
        volume: ``(C, H, W, K)``, intensities in [0, 1]. Behind the kept slices there may be padding, which is left out.

    Raises:
        IntensityUnitsError: intensities lie outside [0, 1].
    """
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    kept = volume[..., : len(meta.get("kept_indices", range(volume.shape[-1])))]
    return slice_levels(checked_voxels(kept)).numpy()


def volume_of_levels(levels: np.ndarray, meta: Mapping[str, Any]) -> MetaTensor:
    """Return a volume ``(C, H, W, K)``, float32 in [0, 1], of which the encoder makes the same levels again."""
    voxels = torch.from_numpy(np.array(levels)).permute(1, 2, 3, 0).float().div_(255)
    return MetaTensor(voxels, meta=dict(meta))
