# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The shape of a slice rule: a stack of slices goes in, the indices of those to keep come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeVar

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.utils import convert_to_tensor

from monai_medpruner.data.volume_meta import positions_from_affine
from monai_medpruner.errors import SettingsError, SliceGeometryError
from monai_medpruner.field_types import check_field_types
from monai_medpruner.results.slice_gap import SliceGap, largest_gap

__all__ = ["POSITION_TOLERANCE_MM", "SliceChoice", "SliceRule", "SliceStack"]

#: two positions are this far apart at most where they are equal but for rounding: headers store decimal text or float32
POSITION_TOLERANCE_MM = 1e-4

_UNPLACED_SOURCES = ("npy", "images")  # readers that know no spacing

Rule = TypeVar("Rule", bound="SliceRule")


@dataclass(frozen=True, eq=False)
class SliceStack:
    """A volume as slice rules see it.

    Args:
        voxels: channel-first, any dtype, layout and device.
        axis: axis of ``voxels`` along which slices lie, channel counted.
        positions_mm: position of each slice along the normal, ascending or descending; with uneven gaps where the
            source has them, and along the normal where the gantry was tilted.
        spacing_mm: in-plane spacing, one value for each of the other spatial axes in their order.
        placed: whether the positions come from the source. Where they do not, slices count as 1 mm apart.
    """

    voxels: torch.Tensor
    axis: int
    positions_mm: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    placed: bool = True

    def __post_init__(self) -> None:
        if len(self.positions_mm) != self.depth:
            raise SliceGeometryError(f"{len(self.positions_mm)} positions were given for {self.depth} slices.")

    @classmethod
    def from_volume(cls, image: NdarrayOrTensor, axis: int) -> SliceStack:
        """Make the stack of a volume; a MetaTensor's metadata and affine say where its slices lie, else 1 mm apart.

        Args:
            image: channel-first volume.
            axis: axis along which slices lie, channel counted.

        Raises:
            SliceGeometryError: ``meta["slice_positions_mm"]`` describes another number of slices.
        """
        voxels = convert_to_tensor(image, track_meta=False)
        depth, planes = voxels.shape[axis], voxels.ndim - 2
        spacing = [1.0] * voxels.ndim
        positions: Sequence[float] = range(depth)
        placed = isinstance(image, MetaTensor) and image.meta.get("source") not in _UNPLACED_SOURCES
        if isinstance(image, MetaTensor):
            found = affine_to_spacing(image.affine, r=min(voxels.ndim, len(image.affine)) - 1).tolist()
            spacing[1 : 1 + len(found)] = found
            if axis < image.affine.shape[-1]:
                positions = positions_from_affine(image.affine, axis - 1, depth)
            positions = image.meta.get("slice_positions_mm", positions)
        in_plane = [spacing[other] for other in range(1, voxels.ndim) if other != axis]
        return cls(voxels, axis, tuple(map(float, positions)), tuple(in_plane[:planes]), placed)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.voxels.shape[self.axis])

    @property
    def slices(self) -> torch.Tensor:
        """The voxels with the slice axis first: ``(D, C, …)``, a view."""
        return self.voxels.movedim(self.axis, 0)

    def distance_mm(self, one: int, other: int) -> float:
        """Distance between the centers of two slices in mm."""
        return abs(self.positions_mm[one] - self.positions_mm[other])

    def beyond(self, one: int, other: int, limit_mm: float) -> bool:
        """Whether two slices are farther apart than ``limit_mm``, by more than rounding explains."""
        return self.distance_mm(one, other) > limit_mm + POSITION_TOLERANCE_MM

    def largest_gap(self, kept: Sequence[int]) -> SliceGap:
        """The largest stretch without a kept slice; see :func:`~monai_medpruner.results.largest_gap`."""
        return largest_gap(self.positions_mm, kept)


@dataclass(frozen=True)
class SliceChoice:
    """What a slice rule decided.

    Args:
        kept: indices of the kept slices, ascending, at least one.
        distances: of every slice, what the rule measured; for the anchor rule the mean absolute difference to the
            anchor that the slice was compared with. None where nothing was measured.
        notes: what was unusual, in sentences.
        rule: that made the choice, where it was found for the volume; rules leave it None.
    """

    kept: list[int]
    distances: list[float] | None = None
    notes: tuple[str, ...] = ()
    rule: SliceRule | None = None


@dataclass(frozen=True)
class SliceRule(ABC):
    """Base of the slice rules: which slices of a volume are worth encoding.

    A rule is a frozen dataclass; its fields are its settings, and the annotated types are checked.

    Raises:
        SettingsError: a field has a value of another type or outside its range.
    """

    def __post_init__(self) -> None:
        check_field_types(self)

    @abstractmethod
    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices to keep."""

    @abstractmethod
    def at_most(self, stack: SliceStack, max_slices: int) -> SliceRule:
        """Return the same rule with its own parameter found for this volume, so that few enough slices are kept.

        Args:
            stack: the volume.
            max_slices: the rule that is returned keeps at most as many slices of ``stack``; at least 1.

        Raises:
            SettingsError: no value of the parameter keeps so few.
        """

    def _with(self: Rule, **changed: Any) -> Rule:
        return replace(self, **changed)


def require_count(name: str, value: int | None) -> None:
    """Raise SettingsError unless ``value`` is at least 1, or None."""
    if value is not None and value < 1:
        raise SettingsError(f"{name} must be at least 1, or None, got {value}.")


def require_positive(name: str, value: float | None) -> None:
    """Raise SettingsError unless ``value`` is finite and above 0, or None."""
    if value is not None and not (isfinite(value) and value > 0):
        raise SettingsError(f"{name} must be a finite number above 0, got {value}.")


def require_at_least_zero(name: str, value: float | None) -> None:
    """Raise SettingsError unless ``value`` is finite and at least 0, or None."""
    if value is not None and not (isfinite(value) and value >= 0):
        raise SettingsError(f"{name} must be finite and at least 0, got {value}.")
