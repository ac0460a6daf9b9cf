# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Several volumes under one SeriesInstanceUID: contrast phases, echoes, b-values, reconstructions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from monai_medpruner.data.dicom_header import PART_FIELDS, SliceHeader
from monai_medpruner.errors import MixedSeriesError, SettingsError

__all__ = ["choose_part"]


def choose_part(slices: Sequence[SliceHeader], part: int | None) -> list[SliceHeader]:
    """Return the slices of one volume of a series.

    A series holds several volumes where a field such as AcquisitionNumber, EchoTime or DiffusionBValue divides its
    slices into groups whose ranges of positions overlap, and these groups where another field does. Groups that follow
    one another are steps of one scan.

    Args:
        slices: of one series.
        part: number of the volume, from 1, as the error lists them; None where there is one.

    Raises:
        MixedSeriesError: there are several volumes, and ``part`` is None or not among them.
        SettingsError: ``part`` was given for a series of one volume.
    """
    names, parts = _parts(slices)
    if not names:
        if part is not None:
            raise SettingsError(f"series_part is {part}, but the series holds one volume: leave it out")
        return list(slices)
    if part is not None and 1 <= part <= len(parts):
        return parts[part - 1]
    listing = "; ".join(f"{number}: {_described(own)}" for number, own in enumerate(parts, 1))
    found = f"{len(parts)} volumes" if part is None else f"{len(parts)} volumes and no volume {part}"
    raise MixedSeriesError(
        f"the series contains {found} at the same place, which differ in {', '.join(names)}. Choose one with "
        f"series_part (--series_part). Found: {listing}"
    )


def _parts(slices: Sequence[SliceHeader]) -> tuple[list[str], list[list[SliceHeader]]]:
    """The fields that divide the slices into overlapping volumes, and these."""
    names, parts = [], [list(slices)]
    for name in PART_FIELDS:
        divided = [part for whole in parts for part in _divided(whole, name)]
        if len(divided) > len(parts):
            names.append(name)
        parts = divided
    return names, parts


def _divided(slices: list[SliceHeader], name: str) -> list[list[SliceHeader]]:
    """The volumes into which a field divides slices; they themselves where it does not."""
    groups: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in slices:
        groups[header.part_fields.get(name, "")].append(header)
    if len(groups) > 1 and _overlap([_range(own) for own in groups.values()]):
        return [groups[value] for value in sorted(groups, key=_sorting)]
    return [slices]


def _overlap(ranges: Sequence[tuple[float, float] | None]) -> bool:
    """Whether two of the ranges share more than their ends."""
    known = sorted(one for one in ranges if one is not None)
    return any(second[0] < first[1] for first, second in pairwise(known))


def _range(slices: Sequence[SliceHeader]) -> tuple[float, float] | None:
    """Lowest and highest position along the normal, mm; None without positions."""
    first = slices[0]
    if first.orientation is None or any(one.position is None for one in slices):
        return None
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    along = [float(np.dot(normal, one.position)) for one in slices if one.position is not None]
    return min(along), max(along)


def _described(slices: Sequence[SliceHeader]) -> str:
    extent = _range(slices)
    place = "" if extent is None else f", {extent[0]:.1f} to {extent[1]:.1f} mm"
    return f"{len(slices)} slices{place}"


def _sorting(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value
