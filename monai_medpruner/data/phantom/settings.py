# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of phantoms: ranges that each phantom is sampled from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from monai_medpruner.errors import SettingsError

__all__ = ["LESION_ORGANS", "PHASES", "PLANES", "PRESETS", "PhantomSettings"]

PLANES = ("axial", "coronal", "sagittal")
PHASES = ("non-contrast", "arterial", "venous")
LESION_ORGANS = ("liver", "spleen", "kidney", "lung")
# allowed (min, max) of each range; a lesion of more than 30 mm does not fit into a small kidney
_LIMITS = {
    "field_of_view_mm": (300.0, 600.0),
    "coverage": (0.5, 1.5),
    "lesion_diameter_mm": (4.0, 30.0),
    "lesion_contrast_hu": (1.0, 200.0),
    "noise_hu": (0.0, 100.0),
    "scale": (0.8, 1.2),
}


@dataclass(frozen=True)
class PhantomSettings:
    """Ranges of a phantom; a pair is (min, max), sampled uniformly, both ends included.

    Args:
        in_plane_sizes: candidates for the width and height of a slice in pixels, each at least 16.
        depth: number of slices, at least 4; reduced if slices would be thinner than 1.05 pixels.
        field_of_view_mm: side of a slice in mm, within [300, 600].
        coverage: fraction of the torso (x 350, y 240, z 360 mm) covered by the slices, within [0.5, 1.5]; together with
            the depth, it determines the slice spacing.
        planes: planes of acquisition, from :data:`PLANES`.
        phases: contrast phases, from :data:`PHASES`.
        lesion_organs: organs that may have a lesion, from :data:`LESION_ORGANS`.
        lesion_diameter_mm: diameter in mm, within [4, 30].
        lesion_contrast_hu: absolute difference between lesion and organ, in HU, within [1, 200]; lung
            nodules have soft-tissue HU instead.
        noise_hu: standard deviation of the white noise, within [0, 100].
        scale: size of the body, within [0.8, 1.2].
        shift_mm: max shift of the body from the center along each axis in mm, within [0, 40].
        rotation_degrees: max rotation about the long axis of the body, within [0, 10]; 0.4 times this about the other
            axes.

    Raises:
        SettingsError: a value is invalid.
    """

    in_plane_sizes: tuple[int, ...] = (144, 160, 192)
    depth: tuple[int, int] = (40, 64)
    field_of_view_mm: tuple[float, float] = (400.0, 440.0)
    coverage: tuple[float, float] = (0.9, 1.0)
    planes: tuple[str, ...] = PLANES
    phases: tuple[str, ...] = PHASES
    lesion_organs: tuple[str, ...] = LESION_ORGANS
    lesion_diameter_mm: tuple[float, float] = (4.0, 30.0)
    lesion_contrast_hu: tuple[float, float] = (50.0, 90.0)
    noise_hu: tuple[float, float] = (4.0, 10.0)
    scale: tuple[float, float] = (0.92, 1.08)
    shift_mm: float = 12.0
    rotation_degrees: float = 5.0

    def __post_init__(self) -> None:
        """Validate the values."""
        for name, limits in _LIMITS.items():
            self._check_range(name, *limits)
        self._check_range("depth", 4, 1024)
        for name, known in (("planes", PLANES), ("phases", PHASES), ("lesion_organs", LESION_ORGANS)):
            names = getattr(self, name)
            if not names or len(set(names)) < len(names) or not set(names) <= set(known):
                raise SettingsError(f"{name} must contain values of {known} without duplicates, got {names!r}.")
        for name, maximum in (("shift_mm", 40.0), ("rotation_degrees", 10.0)):
            if not 0 <= getattr(self, name) <= maximum:
                raise SettingsError(f"{name} must be within [0, {maximum:g}], got {getattr(self, name)!r}.")
        if not self.in_plane_sizes or min(self.in_plane_sizes) < 16:
            raise SettingsError(f"in_plane_sizes must contain sizes of at least 16, got {self.in_plane_sizes!r}.")

    def _check_range(self, name: str, minimum: float, maximum: float) -> None:
        low, high = getattr(self, name)
        if not (isfinite(low) and isfinite(high) and minimum <= low <= high <= maximum):
            raise SettingsError(f"{name} must be (min, max) within [{minimum:g}, {maximum:g}], got {(low, high)}.")


#: settings by name. "small" is the distribution on which the models of ``bundles/medpruner_phantom`` are trained: many
#: slices of 96 by 96 pixels, lesions of strong contrast, and little variation of the bodies, so that training takes
#: minutes on two processor cores
PRESETS: dict[str, PhantomSettings] = {
    "default": PhantomSettings(),
    "small": PhantomSettings(
        in_plane_sizes=(96,),
        depth=(56, 64),
        field_of_view_mm=(400.0, 400.0),
        coverage=(0.95, 0.95),
        lesion_diameter_mm=(10.0, 30.0),
        lesion_contrast_hu=(150.0, 200.0),
        noise_hu=(3.0, 6.0),
        scale=(0.98, 1.02),
        shift_mm=3.0,
        rotation_degrees=1.0,
    ),
}
