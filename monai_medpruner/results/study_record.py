# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What was kept of one study, as a value that can be saved, loaded and summarized."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results.slice_record import SliceRecord
from monai_medpruner.results.versions import package_versions

__all__ = ["StudyRecord", "VolumeGeometry"]

_FORMAT = "monai_medpruner.StudyRecord/1"
_FACTS = ("volume_id", "image", "source", "modality", "plane", "order", "total_slices", "question")
# records of earlier versions lack these
_LATER_FACTS = ("range_slices", "slice_tokens")


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """Where the slices of a volume lie, before any slice was dropped.

    Args:
        shape: rows H, columns W and slices D of the volume that slices were chosen from, in voxels.
        affine: float64 ``(4, 4)``, voxel indices of that volume to RAS mm.
        original_affine: float64 ``(4, 4)``, voxel indices of the source's own grid to RAS mm. Its axes are those of
            ``affine`` permuted and flipped.
        slice_positions_mm: position of every slice along the slice axis; empty where the source has no geometry.
        crop: first and last-plus-one row, then column, of the part of each slice that was encoded; None for all.
    """

    shape: tuple[int, int, int]
    affine: torch.Tensor
    original_affine: torch.Tensor
    slice_positions_mm: tuple[float, ...] = ()
    crop: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """What was kept of one study: slices, tokens, merges, and where they lie.

    Args:
        volume_id: hash of the volume's voxels and affine.
        total_slices: D, slices of the volume before any selection.
        slice_indices: the kept slices, ascending, counted from 0 over the whole volume.
        slices: their tokens, one entry per kept slice.
        geometry: where the slices lie.
        slice_distances: per slice of the whole volume, the mean absolute difference to the anchor that it was compared
            with (MedPruner, eq. 2), in the units of γ; NaN where the filter did not see the slice. None where no filter
            ran.
        image: the path of the image as it was given; empty where the volume did not come from a file.
        source: "NIfTI", "DICOM", "npy" or "images"; None where unknown.
        modality: as the source states it, such as "CT"; None where it does not.
        plane: "axial", "coronal" or "sagittal"; None where unknown.
        order: from where to where the slices run, in words; None where unknown.
        notes: what was unusual about the volume, and how it was handled.
        settings: of preprocessing, model and pruner, as JSON holds them.
        seconds: of the stages "load", "filter", "encode" and "select", those that are known.
        question: hash of the question for a pruner that needs it; None for any other.
        range_slices: slices of the range that was chosen, which shares are measured against; None where all D were.
        slice_tokens: visual tokens of a slice without pruning, uncropped and at the image processor's own size; None
            where this is the size of the kept slices.
    """

    volume_id: str
    total_slices: int
    slice_indices: tuple[int, ...]
    slices: tuple[SliceRecord, ...]
    geometry: VolumeGeometry
    slice_distances: tuple[float, ...] | None = None
    image: str = ""
    source: str | None = None
    modality: str | None = None
    plane: str | None = None
    order: str | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    question: str | None = None
    range_slices: int | None = None
    slice_tokens: int | None = None

    @property
    def name(self) -> str:
        """The name of the record's file in ``records/``, without its suffix."""
        return self.volume_id if self.question is None else f"{self.volume_id}-{self.question[:12]}"

    @property
    def kept_tokens(self) -> list[int]:
        """Visual tokens that reach the language model, per kept slice."""
        return [int(one.keep.sum()) for one in self.slices]

    @property
    def unpruned_tokens(self) -> int:
        """Visual tokens of all slices of the chosen range without pruning; slices have the same size."""
        return self._range * (self.slice_tokens or self.slices[0].keep.numel())

    @property
    def retention(self) -> dict[str, float]:
        """Kept fractions: of the range's "slices", of "tokens_per_kept_slice", and of all its tokens ("overall")."""
        slices = len(self.slice_indices) / self._range
        overall = sum(self.kept_tokens) / self.unpruned_tokens
        return {"slices": slices, "tokens_per_kept_slice": overall / slices, "overall": overall}

    @property
    def _range(self) -> int:
        return self.total_slices if self.range_slices is None else self.range_slices

    def summary(self) -> dict[str, Any]:
        """What a line of results says of the study; see :data:`~monai_medpruner.results.LINE_SCHEMA`."""
        return {
            "volume_id": self.volume_id,
            "record": self.name,
            "source": self.source,
            "plane": self.plane,
            "order": self.order,
            "slices": {
                "total": self.total_slices,
                **({} if self.range_slices is None else {"range": self.range_slices}),
                "kept": len(self.slice_indices),
                "indices": list(self.slice_indices),
            },
            "tokens": {
                "unpruned": self.unpruned_tokens,
                "kept": sum(self.kept_tokens),
                "per_slice": self.kept_tokens,
            },
            "retention": {name: round(value, 6) for name, value in self.retention.items()},
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> Path:
        """Write the record as safetensors, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        target = Path(path)
        geometry = self.geometry
        tensors = {
            "slice_indices": torch.tensor(self.slice_indices, dtype=torch.int64),
            "grids": torch.tensor([one.grid for one in self.slices], dtype=torch.int64),
            "primary": torch.cat([one.primary for one in self.slices]),
            "contextual": torch.cat([one.contextual for one in self.slices]),
            "merged_into": torch.cat([one.merged_into for one in self.slices]),
            "affine": geometry.affine.to(torch.float64).contiguous(),
            "original_affine": geometry.original_affine.to(torch.float64).contiguous(),
            "slice_positions_mm": torch.tensor(geometry.slice_positions_mm, dtype=torch.float64),
        }
        importance = [one.importance for one in self.slices if one.importance is not None]
        if len(importance) == len(self.slices):
            tensors["importance"] = torch.cat(importance)
        if self.slice_distances is not None:
            tensors["slice_distances"] = torch.tensor(self.slice_distances, dtype=torch.float64)
        facts = {name: getattr(self, name) for name in (*_FACTS, *_LATER_FACTS)}
        facts |= {"format": _FORMAT, "shape": geometry.shape, "crop": geometry.crop, "notes": self.notes}
        facts |= {"settings": self.settings, "seconds": self.seconds, "versions": package_versions()}
        atomic_write(target, save(tensors, {name: json.dumps(value) for name, value in facts.items()}))
        return target

    @classmethod
    def load(cls, path: str | Path) -> StudyRecord:
        """Read a record that :meth:`save` wrote.

        Raises:
            OutputFolderError: the file is missing, damaged, or is not a study record.
        """
        try:
            with safe_open(str(path), "pt") as file:
                facts = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError, ValueError) as error:
            raise OutputFolderError(f"{path} cannot be read as a study record: {error}") from error
        if facts.get("format") != _FORMAT:
            raise OutputFolderError(f"{path} is not a study record: its format is {facts.get('format')!r}")
        crop = facts["crop"]
        geometry = VolumeGeometry(
            shape=tuple(facts["shape"]),
            affine=tensors["affine"],
            original_affine=tensors["original_affine"],
            slice_positions_mm=tuple(tensors["slice_positions_mm"].tolist()),
            crop=None if crop is None else (tuple(crop[0]), tuple(crop[1])),
        )
        distances = tensors.get("slice_distances")
        return cls(
            slice_indices=tuple(tensors["slice_indices"].tolist()),
            slices=_slice_records(tensors),
            geometry=geometry,
            slice_distances=None if distances is None else tuple(distances.tolist()),
            notes=tuple(facts["notes"]),
            settings=facts["settings"],
            seconds=facts["seconds"],
            **{name: facts[name] for name in _FACTS},
            **{name: facts.get(name) for name in _LATER_FACTS},
        )


def _slice_records(tensors: Mapping[str, torch.Tensor]) -> tuple[SliceRecord, ...]:
    """The records of the kept slices from tensors that hold the tokens of all of them one after the other."""
    grids: Sequence[tuple[int, int]] = [(rows, columns) for rows, columns in tensors["grids"].tolist()]
    sizes = [rows * columns for rows, columns in grids]
    names = [name for name in ("primary", "contextual", "merged_into", "importance") if name in tensors]
    parts = [tensors[name].split(sizes) for name in names]
    return tuple(
        SliceRecord(grid, **dict(zip(names, own, strict=True))) for grid, *own in zip(grids, *parts, strict=True)
    )
