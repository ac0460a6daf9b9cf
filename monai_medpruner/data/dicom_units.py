# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Units of a DICOM series, and whether its slices were rescaled to common ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from monai_medpruner.data.dicom_header import SliceHeader
from monai_medpruner.errors import IntensityUnitsError

__all__ = ["check_rescale", "series_units"]

#: RescaleType -> units: DICOM PS3.3, sections C.8.2.1 and C.11.1.1.2; US means unspecified
_RESCALE_TYPES = {
    "HU": "HU",
    "HU_MOD": "modified HU",
    "US": "unstated",
    "OD": "optical densities",
    "MGML": "mg/ml",
    "Z_EFF": "effective atomic numbers",
    "ED": "electron densities",
    "EDW": "electron densities relative to water",
    "PCT": "percentages",
}
#: Units of PET: section C.8.9.1.1.3
_PET_UNITS = frozenset(
    "CNTS NONE CM2 PCNT CPS BQML MGMLMIN UMOLMIN MLMING MLG 1CM UMOLML PROPCNTS PROPCPS MLMINML MLML GML STDDEV".split()
)
#: values of ImageType of CT images that are not in HU, for files without RescaleType: sections C.8.15.2.1.1 and
#: C.8.16.1.4, and names of perfusion maps
_IMAGE_TYPES = {
    "LOCALIZER": "of a projection (localizer)",
    "EFF_ATOMIC_NUM": "effective atomic numbers",
    "ELECTRON_DENSITY": "electron densities",
    "MAT_SPECIFIC": "amounts of a material",
    "MAT_FRACTIONAL": "fractions of a material",
    "MAT_VALUE_BASED": "amounts of a material",
    "SUBTRACTION": "differences of images",
    "DIVISION": "quotients of images",
    "MULTIPLICATION": "products of images",
    "STD_DEVIATION": "standard deviations",
    **dict.fromkeys(("CBF", "CBV", "MTT", "TTP", "TMAX"), "of a perfusion map"),
}
_OTHER = "other units"
#: values of ImageType and ComplexImageComponent of MR images: section C.8.13.3.1.1, and those of scanners
_MR_PARTS = {
    "phase": ("P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP"),
    "real part": ("R", "REAL"),
    "imaginary part": ("I", "IMAGINARY"),
}
#: modalities whose slices usually have a rescaling each
_OWN_RESCALE = ("PT", "NM")


def series_units(slices: Sequence[SliceHeader]) -> tuple[str | None, list[str]]:
    """Return the units of a CT and notes on what the values are.

    Args:
        slices: of one volume.

    Returns:
        for CT "HU", "modified HU", "unstated", or what the values are instead; None for other modalities.

    Raises:
        IntensityUnitsError: if the slices state different units.
    """
    found = [_units(one) for one in slices]
    (units, text), _ = Counter(found).most_common(1)[0]
    differing = [one for one in found if one != (units, text)]
    if differing:
        raise IntensityUnitsError(
            f"{len(differing)} of {len(slices)} slices differ from the others in their units, by RescaleType, Units or "
            f"ImageType: {differing[0][0]} against {units}. They are no single volume: move those of other units out "
            "of the folder."
        )
    if slices[0].modality != "CT":
        return None, _mr_notes(slices) if slices[0].modality == "MR" else []
    if units == "HU":
        return "unstated" if all(None in one.rescale for one in slices) else "HU", []
    return units, [f"values of this CT by its header: {units}"]


def _units(header: SliceHeader) -> tuple[str, str]:
    """The units of a slice in words, and a text that may not be shown where they are no defined term."""
    stated = header.units.upper()
    if header.modality == "CT" and header.is_localizer:
        return _IMAGE_TYPES["LOCALIZER"], ""
    if stated:
        known = stated if stated in _PET_UNITS else _RESCALE_TYPES.get(stated)
        return (known, "") if known else (_OTHER, stated)
    if header.modality != "CT":
        return "unstated", ""
    kinds = [_IMAGE_TYPES[one] for one in _image_type(header) if one in _IMAGE_TYPES]
    return (kinds[0] if kinds else "HU"), ""


def _image_type(header: SliceHeader) -> list[str]:
    return [one.strip().upper() for one in header.part_fields.get("ImageType", "").split("\\")]


def _mr_notes(slices: Sequence[SliceHeader]) -> list[str]:
    values = {*_image_type(slices[0])[2:], slices[0].part_fields.get("ComplexImageComponent", "").upper()}
    return [
        f"values of this MR by its header: {part} of the signal, not its magnitude"
        for part, names in _MR_PARTS.items()
        if values & set(names)
    ]


def check_rescale(slices: Sequence[SliceHeader], voxels: np.ndarray) -> list[str]:
    """Check slices that were rescaled in another way than their neighbors; return notes.

    A slice is refused where its values fit those of its neighbors better with their slope and intercept than with its
    own: then its header is wrong, as where RescaleIntercept is missing and its values are 1024 too high. Slices of PET
    have a slope each, and are not compared.

    Args:
        slices: N slices in the order of their positions.
        voxels: (N, rows, columns), rescaled.

    Raises:
        IntensityUnitsError: if a slice was rescaled in a way that does not fit its neighbors.
    """
    values = [(1.0 if one.rescale[0] is None else one.rescale[0], one.rescale[1] or 0.0) for one in slices]
    counts = Counter(values)
    if len(counts) == 1 or slices[0].modality in _OWN_RESCALE:
        return []
    ((usual, count),) = counts.most_common(1)
    is_ct = slices[0].modality == "CT"
    for place, own in enumerate(values):
        for neighbor in (place - 1, place + 1):
            if not 0 <= neighbor < len(values) or values[neighbor] == own:
                continue
            # without a usual one, each has its own by design, and a CT's intercepts are still about the same
            odd = own != usual if 2 * count >= len(values) else is_ct and abs(own[1] - values[neighbor][1]) >= 100
            if odd and _fits_better(voxels[place], own, values[neighbor], voxels[neighbor]):
                raise IntensityUnitsError(
                    f"slice {place} of {len(slices)} along the normal (counted from 0) has RescaleSlope {own[0]:g} and "
                    f"RescaleIntercept {own[1]:g}, its neighbor {values[neighbor][0]:g} and {values[neighbor][1]:g}, "
                    "and its values fit the neighbor's only if they are rescaled alike: the header of one of them is "
                    "wrong. Correct it, or move the slice out of the folder."
                )
    return [f"slope and intercept differ between slices ({len(counts)} pairs) and were applied to each slice"]


def _fits_better(
    voxels: np.ndarray, own: tuple[float, float], other: tuple[float, float], neighbor: np.ndarray
) -> bool:
    """Whether a slice is clearly closer to its neighbor when rescaled as that one."""
    stored = (voxels.astype(np.float64) - own[1]) / own[0]
    alternative = stored * other[0] + other[1]
    change = np.abs(voxels - alternative)
    moved = change > 1e-3 * max(float(change.max()), 1e-30)
    change, distance = change[moved], np.abs(voxels[moved] - neighbor[moved])
    if not len(change):
        return False
    closer = np.median(np.abs(alternative[moved] - neighbor[moved]))
    return bool(np.median(distance) > 1.1 * closer and np.median(change) > 0.25 * closer)
