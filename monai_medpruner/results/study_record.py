# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The pruning record of one study, which can be saved, loaded and summarized."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results.sealed_file import seal_tensors, unseal_tensors
from monai_medpruner.results.slice_gap import SliceGap, largest_gap
from monai_medpruner.results.slice_record import SliceRecord
from monai_medpruner.results.versions import package_versions

__all__ = ["NOTED_GAP_MM", "StudyRecord", "VolumeGeometry"]

#: a stretch without a kept slice is noted where it is longer than this
NOTED_GAP_MM = 10.0

_FORMAT = "monai_medpruner.StudyRecord/1"
_UNPLACED_SOURCES = ("npy", "images")  # files that hold no spacing
_FACTS = (
    "volume_id",
    "image",
    "source",
    "modality",
    "plane",
    "order",
    "total_slices",
    "range_slices",
    "unpruned_tokens_per_slice",
    "question",
)


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """Geometry of a volume before slices are dropped.

    Args:
        shape: rows H, columns W and slices D of the volume, in voxels.
        affine: float64 ``(4, 4)``, voxel indices of the volume to RAS mm.
        original_affine: float64 ``(4, 4)``, voxel indices of the source's grid to RAS mm. Its axes are those of
            ``affine``, permuted and flipped.
        slice_positions_mm: position of each slice along the slice axis, in mm; empty if the source has no geometry.
        crop: (start, stop) of the rows and of the columns that were encoded in each slice; None for whole slices.
    """

    shape: tuple[int, int, int]
    affine: torch.Tensor
    original_affine: torch.Tensor
    slice_positions_mm: tuple[float, ...] = ()
    crop: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """The pruning record of one study: kept slices, kept and merged tokens, geometry, settings and times.

    Args:
        volume_id: hash of the volume's voxels and affine.
        total_slices: D, number of slices of the volume before any selection.
        slice_indices: indices of the kept slices in the whole volume, ascending, from 0.
        slices: one record per kept slice.
        geometry: geometry of the whole volume.
        slice_distances: for each slice of the whole volume, what the slice rule measured: for the anchor rule, the mean
            absolute difference to its anchor (MedPruner, eq. 2), in the units of γ; NaN for slices that the rule did
            not process. None if no rule measured anything.
        image: path of the image as given by the user; empty if the volume does not come from a file.
        source: "NIfTI", "DICOM", "npy" or "images"; None if unknown.
        modality: modality that the source states, such as "CT"; None if it states none.
        plane: "axial", "coronal" or "sagittal"; None if unknown.
        order: direction of the slices in words; None if unknown.
        notes: unusual properties of the volume, and how they were handled.
        settings: settings of preprocessing, model and pruner, as JSON values.
        seconds: seconds of the stages "load", "filter", "encode" and "select", as far as known.
        question: hash of the question if the pruner needs it; otherwise None.
        range_slices: number of slices of the chosen range, the denominator of retention; None if all D were chosen.
        unpruned_tokens_per_slice: visual tokens of a whole slice without pruning, at the image processor's own size;
            None if the kept slices have that size.
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
    unpruned_tokens_per_slice: int | None = None

    @property
    def name(self) -> str:
        """Name of the record's file in ``records/``, without its suffix."""
        return self.volume_id if self.question is None else f"{self.volume_id}-{self.question[:12]}"

    @property
    def kept_tokens(self) -> list[int]:
        """Number of visual tokens that reach the language model, per kept slice."""
        return [int(one.keep.sum()) for one in self.slices]

    @property
    def unpruned_tokens(self) -> int:
        """Visual tokens of all slices of the chosen range without pruning or cropping; slices have the same size."""
        return self._range * (self.unpruned_tokens_per_slice or self.slices[0].keep.numel())

    @property
    def retention(self) -> dict[str, float]:
        """Kept fractions: of the range's "slices", of "tokens_per_kept_slice", and of all its tokens ("overall").

        Tokens that were never made, since the slices were cropped, count as not kept.
        """
        slices = len(self.slice_indices) / self._range
        overall = sum(self.kept_tokens) / self.unpruned_tokens
        return {"slices": slices, "tokens_per_kept_slice": overall / slices, "overall": overall}

    @property
    def dropped_slices(self) -> tuple[int, ...]:
        """Indices of the slices that were encoded and then dropped, all but one token, by a filter in the pruner."""
        return tuple(index for index, one in zip(self.slice_indices, self.slices, strict=False) if one.dropped)

    @property
    def largest_gap(self) -> SliceGap | None:
        """The largest stretch without a kept slice, the ends of the volume included; None without geometry.

        :attr:`dropped_slices` do not count as kept. See :func:`~monai_medpruner.results.largest_gap`.
        """
        positions = self.geometry.slice_positions_mm
        if not positions or self.source in _UNPLACED_SOURCES:
            return None
        return largest_gap(positions, sorted(set(self.slice_indices) - set(self.dropped_slices)))

    @property
    def largest_gap_mm(self) -> float | None:
        """Length of :attr:`largest_gap` in mm; None without geometry."""
        return None if self.largest_gap is None else self.largest_gap.length_mm

    @property
    def _range(self) -> int:
        return self.total_slices if self.range_slices is None else self.range_slices

    def summary(self) -> dict[str, Any]:
        """Return the fields of the study in a result line; see :data:`~monai_medpruner.results.LINE_SCHEMA`."""
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
                **({"dropped_after_encoding": list(self.dropped_slices)} if self.dropped_slices else {}),
                "largest_gap_mm": None if self.largest_gap_mm is None else round(self.largest_gap_mm, 3),
            },
            "tokens": {
                "unpruned": self.unpruned_tokens,
                "kept": sum(self.kept_tokens),
                "per_slice": self.kept_tokens,
            },
            "retention": {name: round(value, 6) for name, value in self.retention.items()},
            "notes": [*self.notes, *self._dropped_note(), *self._gap_note()],
        }

    def _dropped_note(self) -> list[str]:
        if not self.dropped_slices:
            return []
        return [
            f"{len(self.dropped_slices)} of the {len(self.slice_indices)} encoded slices were dropped behind the "
            "encoder: one token of each is left."
        ]

    def _gap_note(self) -> list[str]:
        gap = self.largest_gap
        if gap is None or gap.length_mm <= NOTED_GAP_MM + 1e-4:  # positions are stored as decimal text or float32
            return []
        return [
            f"No slice between {gap.first} and {gap.last} was read, a stretch of {gap.length_mm:.1f} mm: a smaller "
            "finding there can be missed."
        ]

    def save(self, path: str | Path) -> Path:
        """Write the record as safetensors, atomically, with a hash of every byte of the file.

        Raises:
            OutputFolderError: the file cannot be written.
        """
        target = Path(path)
        atomic_write(target, self.to_bytes())
        return target

    def to_bytes(self) -> bytes:
        """Return the content of the file that :meth:`save` writes."""
        tensors, facts = self.packed()
        facts |= {"versions": package_versions()}
        described = {name: json.dumps(value) for name, value in facts.items()}
        return seal_tensors(tensors, {**described, "format": _FORMAT})

    def packed(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The record as tensors, and as facts that JSON can hold; :meth:`unpacked` makes a record of them."""
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
        if self.dropped_slices:
            tensors["dropped"] = torch.tensor([one.dropped for one in self.slices])
        if self.slice_distances is not None:
            tensors["slice_distances"] = torch.tensor(self.slice_distances, dtype=torch.float64)
        facts = {name: getattr(self, name) for name in _FACTS}
        facts |= {"shape": geometry.shape, "crop": geometry.crop, "notes": self.notes}
        facts |= {"settings": self.settings, "seconds": self.seconds}
        return tensors, facts

    @classmethod
    def load(cls, path: str | Path) -> StudyRecord:
        """Read a file that :meth:`save` wrote.

        Raises:
            OutputFolderError: the file is missing, damaged, or is not a study record.
        """
        try:
            tensors, described = unseal_tensors(Path(path).read_bytes(), _FORMAT)
            facts = {name: json.loads(value) for name, value in described.items() if name not in ("format", "sha256")}
            return cls.unpacked(tensors, facts)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise OutputFolderError(f"{path} cannot be read as a study record: {error}") from error

    @classmethod
    def unpacked(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> StudyRecord:
        """Make a record of what :meth:`packed` returned.

        Args:
            tensors: by name.
            facts: by name, after a way through JSON.
        """
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
        )


def _slice_records(tensors: Mapping[str, torch.Tensor]) -> tuple[SliceRecord, ...]:
    """Return the records of the kept slices from tensors with the concatenated tokens of all slices."""
    grids: Sequence[tuple[int, int]] = [(rows, columns) for rows, columns in tensors["grids"].tolist()]
    sizes = [rows * columns for rows, columns in grids]
    names = [name for name in ("primary", "contextual", "merged_into", "importance") if name in tensors]
    parts = [tensors[name].split(sizes) for name in names]
    dropped = tensors["dropped"].tolist() if "dropped" in tensors else [False] * len(grids)
    return tuple(
        SliceRecord(grid, dropped=gone, **dict(zip(names, own, strict=True)))
        for grid, gone, *own in zip(grids, dropped, *parts, strict=True)
    )
