# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of phantoms with findings: ranges that each phantom is sampled from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from monai_medpruner.errors import SettingsError

__all__ = ["FindingsSettings"]

# allowed (min, max) of each range
_LIMITS = {
    "field_of_view_mm": (190.0, 300.0),
    "slice_spacing_mm": (2.0, 8.0),
    "diameter_mm": (4.0, 20.0),
    "hyperdense_hu": (5.0, 60.0),
    "hypodense_hu": (5.0, 30.0),
    "noise_hu": (0.0, 30.0),
    "kernel_mm": (0.0, 3.0),
    "scale": (0.85, 1.1),
}


@dataclass(frozen=True)
class FindingsSettings:
    """Ranges of a phantom with findings; a pair is (min, max), sampled uniformly, both ends included.

    Args:
        in_plane_sizes: candidates for the width and height of a slice in pixels, each at least 64.
        depth: number of slices, within [8, 40].
        field_of_view_mm: side of a slice in mm, within [190, 300].
        slice_spacing_mm: distance of two slices, which is their thickness, within [2, 8].
        counts: numbers of findings, all equally frequent; from 1 to 4.
        diameter_mm: diameter of a finding in mm, within [4, 20].
        hyperdense_hu: HU of a hyperdense finding minus HU of the brain, within [5, 60].
        hypodense_hu: HU of the brain minus HU of a hypodense finding, within [5, 30].
        lookalikes: number of lookalikes (calcification, cyst, vessel), within [0, 8].
        distractors: number of markers on the skin and of wires on the head rest, within [0, 8].
        noise_hu: standard deviation of the noise after the kernel, which stands for the dose, within [0, 30].
        kernel_mm: standard deviation of the kernel in mm, from sharp to smooth, within [0, 3].
        scale: size of the head, within [0.85, 1.1].
        rotation_degrees: max rotation of the head in the plane of a slice, within [0, 10].

    Raises:
        SettingsError: a value is invalid.
    """

    in_plane_sizes: tuple[int, ...] = (96, 112, 128)
    depth: tuple[int, int] = (14, 16)
    field_of_view_mm: tuple[float, float] = (198.0, 208.0)
    slice_spacing_mm: tuple[float, float] = (4.0, 6.0)
    counts: tuple[int, ...] = (1, 2, 3, 4)
    diameter_mm: tuple[float, float] = (4.0, 20.0)
    hyperdense_hu: tuple[float, float] = (30.0, 50.0)
    hypodense_hu: tuple[float, float] = (18.0, 26.0)
    lookalikes: tuple[int, int] = (1, 4)
    distractors: tuple[int, int] = (1, 4)
    noise_hu: tuple[float, float] = (1.5, 4.5)
    kernel_mm: tuple[float, float] = (0.5, 1.8)
    scale: tuple[float, float] = (0.92, 1.0)
    rotation_degrees: float = 4.0

    def __post_init__(self) -> None:
        """Validate the values."""
        for name, limits in (
            *_LIMITS.items(),
            ("depth", (8, 40)),
            ("lookalikes", (0, 8)),
            ("distractors", (0, 8)),
        ):
            low, high = getattr(self, name)
            if not (isfinite(low) and isfinite(high) and limits[0] <= low <= high <= limits[1]):
                raise SettingsError(
                    f"{name} must be (min, max) within [{limits[0]:g}, {limits[1]:g}], got {(low, high)}."
                )
        if not self.in_plane_sizes or min(self.in_plane_sizes) < 64:
            raise SettingsError(f"in_plane_sizes must contain sizes of at least 64, got {self.in_plane_sizes!r}.")
        if not self.counts or not set(self.counts) <= {1, 2, 3, 4}:
            raise SettingsError(f"counts must contain numbers from 1 to 4, got {self.counts!r}.")
        if not 0 <= self.rotation_degrees <= 10:
            raise SettingsError(f"rotation_degrees must be within [0, 10], got {self.rotation_degrees!r}.")
