# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a phantom may look like: ranges that each phantom is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from monai_medpruner.errors import SettingsError

__all__ = ["LESION_ORGANS", "PHASES", "PLANES", "PRESETS", "PhantomSettings"]

PLANES = ("axial", "coronal", "sagittal")
PHASES = ("non-contrast", "arterial", "venous")
LESION_ORGANS = ("liver", "spleen", "kidney", "lung")
# (least, most) that a range may hold; a lesion of more than 30 mm finds no room in a small kidney
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
    """Ranges of a phantom; a pair is (least, most), drawn uniformly, both ends included.

    Args:
        in_plane_sizes: pixels of a slice along either side, one of these, each at least 16.
        depth: number of slices, at least 4; fewer where slices would be thinner than 1.05 pixels.
        field_of_view_mm: side of a slice in mm, within [300, 600].
        coverage: part of the torso (x 350, y 240, z 360 mm) that the slices span, within [0.5, 1.5]; with the depth
            it gives the slice spacing.
        planes: planes of acquisition, of :data:`PLANES`.
        phases: contrast phases, of :data:`PHASES`.
        lesion_organs: organs that may bear the lesion, of :data:`LESION_ORGANS`.
        lesion_diameter_mm: within [4, 30].
        lesion_contrast_hu: absolute difference between lesion and organ, in HU, within [1, 200]; a nodule of the
            lung has the HU of soft tissue instead.
        noise_hu: standard deviation of the white noise, within [0, 100].
        scale: size of the body, within [0.8, 1.2].
        shift_mm: most that the body is off the center along each axis, within [0, 40].
        rotation_degrees: most that it is turned about its long axis, within [0, 10]; two fifths of it about the
            others.

    Raises:
        SettingsError: a value is not as described.
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
        """Refuse what is not as described."""
        for name, (least, most) in _LIMITS.items():
            self._check_range(name, least, most)
        self._check_range("depth", 4, 1024)
        for name, known in (("planes", PLANES), ("phases", PHASES), ("lesion_organs", LESION_ORGANS)):
            names = getattr(self, name)
            if not names or len(set(names)) < len(names) or not set(names) <= set(known):
                raise SettingsError(f"{name} must hold some of {known}, each once, got {names!r}.")
        for name, most in (("shift_mm", 40.0), ("rotation_degrees", 10.0)):
            if not 0 <= getattr(self, name) <= most:
                raise SettingsError(f"{name} must be within [0, {most:g}], got {getattr(self, name)!r}.")
        if not self.in_plane_sizes or min(self.in_plane_sizes) < 16:
            raise SettingsError(f"in_plane_sizes must hold sizes of at least 16, got {self.in_plane_sizes!r}.")

    def _check_range(self, name: str, least: float, most: float) -> None:
        low, high = getattr(self, name)
        if not (isfinite(low) and isfinite(high) and least <= low <= high <= most):
            raise SettingsError(f"{name} must be (least, most) within [{least:g}, {most:g}], got {(low, high)}.")


#: settings by name. "small" is what the small trained models of ``bundles/medpruner_phantom`` know: slices of 96 by 96
#: pixels, many of them, lesions of strong contrast, and bodies that differ and move little, since two processor cores
#: must learn them in minutes
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
