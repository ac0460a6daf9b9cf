# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What an encoded study was made from: the one place that decides when two studies are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from monai_medpruner.data.volume_meta import PerVolumeList
from monai_medpruner.results import package_versions
from monai_medpruner.transforms import describe_transform

__all__ = ["StudyKey", "VolumeSource"]

# entry of a volume's metadata: the source that was known before it was loaded, and what the volume was like then
_SOURCE = "study_source"
# metadata that the record is made of, and that say how much a budget allows
_FACTS = (
    *("volume_id", "source", "modality", "plane", "slice_order", "affine", "original_affine"),
    *("slice_positions_mm", "notes"),
    *("kept_indices", "source_depth", "source_affine", "source_positions_mm", "range_depth", "slice_distances"),
    *("crop", "uncropped_size"),
)
# what an encoder tells of itself that has a part of its own in the key, and the name of its settings, which has none
_TOLD_APART = ("model", "pruner", "budget", "preset")


@dataclass(frozen=True)
class VolumeSource:
    """Where the slices that are encoded come from: a volume, and what was done to it.

    There are three ways to know a volume, the first of which holds before it is loaded:

    1. ``files:`` and the hash of its files, with the description of all transforms (:meth:`of_files`). The volume
       bears it in its metadata (:meth:`mark`), as long as nothing else was done to it.
    2. ``volume:`` and its ``volume_id``, the hash of voxels and affine as they were read, with the description of the
       stages in its metadata. It is the caller's word that nothing else was done.
    3. ``voxels:`` and the hash of the voxels as they are encoded, then ``metadata:`` and the hash of those metadata
       that say where the slices come from, since the record and the denominator of a budget depend on them.

    Args:
        volume: hash of the volume's content, and how it was made.
        preprocessing: description of what was done to it, as JSON.
    """

    volume: str
    preprocessing: str

    @classmethod
    def of_files(cls, digest: str, preprocessing: Callable) -> VolumeSource:
        """Source of files that are still to be loaded.

        Args:
            digest: of :func:`~monai_medpruner.data.file_digests.file_digest`.
            preprocessing: what loads and filters; described by
                :func:`~monai_medpruner.transforms.describe_transform`.
        """
        return cls(f"files:{digest}", as_json(describe_transform(preprocessing)))

    @classmethod
    def of_volume(cls, volume: torch.Tensor, *, trust_metadata: bool = True) -> VolumeSource:
        """Source of a volume that is loaded.

        Args:
            volume: the slices that are encoded, ``(C, H, W, K)``.
            trust_metadata: whether ``volume_id`` may stand for the voxels. Without it, voxels that somebody changed
                after the transforms that the metadata tell of are never taken for the unchanged ones.
        """
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        marked = meta.get(_SOURCE)
        if marked is not None and marked[2] == _state(volume):
            return cls(marked[0], marked[1])
        stages = as_json(list(meta.get("preprocessing", ())))
        if trust_metadata and "preprocessing" in meta and "volume_id" in meta:
            return cls(f"volume:{meta['volume_id']}", stages)
        facts = {name: _plain(meta[name]) for name in _FACTS if name in meta}
        metadata = hashlib.sha256(as_json(facts).encode()).hexdigest()
        return cls(f"voxels:{_content_hash(volume)};metadata:{metadata}", stages)

    @property
    def content(self) -> str:
        """The hash of the files or voxels alone."""
        return self.volume.partition(";")[0].partition(":")[2]

    def mark(self, volume: MetaTensor) -> None:
        """Write the source into a volume's metadata, when it has gone through all transforms."""
        volume.meta[_SOURCE] = PerVolumeList([self.volume, self.preprocessing, _state(volume)])


@dataclass(frozen=True)
class StudyKey:
    """What an encoded study was made from; equal keys mean equal tokens on the same kind of device.

    Args:
        volume: hash of the volume's content; see :class:`VolumeSource`.
        preprocessing: description of what was done to the volume, as JSON.
        model: description of the encoder, as JSON: checkpoint, revision, how slices become its input, and whatever else
            it tells of itself. The name of a preset is left out.
        pruner: description of the pruner, as JSON; "null" for none.
        dtype: of the encoder's weights.
        budget: description of the token budget, as JSON; "null" for none.
        versions: of the packages that numbers depend on, as JSON.
        question: hash of the question for a pruner that needs it; None for any other.
    """

    volume: str
    preprocessing: str
    model: str
    pruner: str
    dtype: str
    budget: str = "null"
    versions: str = ""
    question: str | None = None

    @classmethod
    def of(cls, source: VolumeSource, described: Mapping[str, Any]) -> StudyKey:
        """The key of a source for an encoder.

        Args:
            source: of the slices.
            described: what the encoder's ``describe`` returns: ``model``, ``pruner``, and what else there is.
        """
        others = {name: value for name, value in described.items() if name not in _TOLD_APART}
        model = {**described["model"], **others}
        versions = {name: version for name, version in package_versions().items() if name != "python"}
        return cls(
            volume=source.volume,
            preprocessing=source.preprocessing,
            model=as_json(model),
            pruner=as_json(described["pruner"]),
            dtype=str(model.get("dtype", "")),
            budget=as_json(described.get("budget")),
            versions=as_json(versions),
        )

    @property
    def digest(self) -> str:
        """64 hexadecimal digits of SHA-256, for the name of a file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def for_question(self, question: str) -> StudyKey:
        """The key of the same study, pruned for a question."""
        return replace(self, question=hashlib.sha256(question.encode()).hexdigest())


def as_json(description: Any) -> str:
    """A description as text that is equal for equal descriptions."""
    return json.dumps(description, sort_keys=True)


def _state(volume: torch.Tensor) -> str:
    """What other transforms would change about a volume, in a few words."""
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    count = len(meta.get("kept_indices", range(volume.shape[-1])))
    kept = [int(one) for one in meta.get("kept_indices", ())]
    stages = list(meta.get("preprocessing", ()))
    crop = _plain([meta.get(name) for name in ("crop", "uncropped_size")])
    # a batch pads volumes behind the kept slices
    size = [*volume.shape[:-1], count]
    return as_json([size, kept, len(stages), crop, meta.get("volume_id"), _checksum(volume[..., :count])])


def _checksum(volume: torch.Tensor) -> str:
    """Exact sums over the bits of each row and of each column: a quick look at whether voxels were changed."""
    voxels = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    bits = voxels.detach().float().view(torch.int32)
    sums = torch.cat([bits.sum(axis, dtype=torch.int64) for axis in (1, 2)], dim=1)
    return hashlib.sha256(sums.cpu().contiguous().numpy().tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """Metadata as JSON holds them, the same before and after a way through a batch."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (int, float)) else str(value)


def _content_hash(volume: torch.Tensor) -> str:
    """SHA-256 of the voxels as they are encoded."""
    voxels = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    content = voxels.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()
