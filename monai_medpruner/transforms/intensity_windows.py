# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Scale a volume to [0, 1] the way its modality or its model asks for: HU windows, percentiles, or slice by slice."""

from __future__ import annotations

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import TransformBackends, convert_to_tensor

from monai_medpruner.data.volume_meta import append_note
from monai_medpruner.errors import IntensityUnitsError, SettingsError, ZeroVarianceError
from monai_medpruner.transforms.check_volume import voxel_range
from monai_medpruner.transforms.each_key import EachKeyd
from monai_medpruner.transforms.hu_windows import HUWindows, Windows, require_one_channel, rescale_channels
from monai_medpruner.transforms.padding import hide_padding, looks_like_hu, padding_mask
from monai_medpruner.transforms.slice_min_max import SliceMinMax
from monai_medpruner.transforms.stored_range import STORED_RANGES, scale_stored_range

__all__ = [
    "IntensityWindows",
    "IntensityWindowsD",
    "IntensityWindowsDict",
    "IntensityWindowsd",
    "PercentileWindow",
    "PercentileWindowD",
    "PercentileWindowDict",
    "PercentileWindowd",
]


class PercentileWindow(Transform):
    """Scale the interval between two percentiles of the voxels to [0, 1], clipped: for MR, whose units are arbitrary.

    Padding (:func:`~.padding.padding_mask`) is left out of the percentiles, becomes 0, and is noted.

    Args:
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.

    Raises:
        SettingsError: not 0 <= lower < upper <= 100.
        ZeroVarianceError: when called on a volume whose two percentiles coincide.
        VolumeShapeError: when called on more than one channel.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, lower: float = 0.5, upper: float = 99.5) -> None:
        if not 0 <= lower < upper <= 100:
            raise SettingsError(f"percentiles must satisfy 0 <= lower < upper <= 100, got {lower} and {upper}.")
        self.lower, self.upper = lower, upper

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Scale ``img``.

        Args:
            img: ``(1, H, W, D)``, any dtype and unit.

        Returns:
            ``(1, H, W, D)`` float32 in [0, 1].
        """
        require_one_channel(img)
        padding, note = padding_mask(img)
        return hide_padding(rescale_channels(img, [self._interval(img, padding)]), padding, note)

    def interval(self, img: NdarrayOrTensor) -> tuple[float, float]:
        """Return the values that become 0 and 1.

        Args:
            img: ``(1, H, W, D)``, any dtype and unit.
        """
        return self._interval(img, padding_mask(img)[0])

    def _interval(self, img: NdarrayOrTensor, padding: torch.Tensor | None) -> tuple[float, float]:
        # MONAI's percentile is exact at any size: it leaves torch.quantile, limited to 2**24 values, for numpy's
        voxels = convert_to_tensor(img, track_meta=False, dtype=torch.float32).detach()
        measured = voxels if padding is None else voxels[~padding]
        low, high = torch.as_tensor(percentile(measured, [self.lower, self.upper])).tolist()
        if low == high:
            raise ZeroVarianceError(
                f"percentiles {self.lower:g} and {self.upper:g} of the voxels are both {low:g}: nearly all voxels have "
                "the same value. Choose wider percentiles or crop the background."
            )
        return low, high


class IntensityWindows(Transform):
    """Choose and apply the scaling: HU windows for CT, percentiles for MR.

    With ``modality="auto"`` the modality is ``meta["modality"]``. Where that is absent (NIfTI), or the header of a CT
    does not state its units (``meta["units"]`` is "unstated"), voxels below -200 mean CT in HU
    (:func:`~.padding.looks_like_hu`), which is noted in ``meta["notes"]``; others could be anything, and are refused
    rather than guessed. So is a CT whose header states other units than HU.

    Voxels that were scaled before they were stored have no such units. Where the reader says so in
    ``meta["intensity"]``, "auto" only brings them to [0, 1], whatever the modality; so do, for any volume,
    ``windows="unit"`` (voxels in [0, 1], left as they are) and ``windows="uint8"`` (0 to 255).

    Args:
        modality: "ct", "mr" or "auto".
        windows: "auto" (soft tissue for CT, percentiles for MR), "percentile" (0.5 to 99.5), "slice_minmax" (see
            :class:`~.slice_min_max.SliceMinMax`), or HU windows as in :class:`~.hu_windows.HUWindows`. The second and
            third suit any modality.
        assume_hu: take the voxels for HU whatever they look like.

    Raises:
        SettingsError: ``modality`` or ``windows`` is not as described.
        IntensityUnitsError: the modality is unknown or neither CT nor MR, HU windows were asked for MR, or the voxels
            of a CT cannot be HU; or voxels lie outside the range they are stored in.
        VolumeShapeError: more than one channel.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, modality: str = "auto", windows: Windows = "auto", assume_hu: bool = False) -> None:
        if modality not in ("auto", "ct", "mr"):
            raise SettingsError(f"modality must be 'auto', 'ct' or 'mr', got {modality!r}.")
        self.modality = modality
        self.windows = windows
        self.assume_hu = assume_hu
        self.percentile_window = PercentileWindow()
        self.slice_min_max = SliceMinMax()
        self.hu_windows = None
        if windows not in ("percentile", "slice_minmax", *STORED_RANGES):
            self.hu_windows = HUWindows("soft_tissue" if windows == "auto" else windows, assume_hu)

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Scale ``img``.

        Args:
            img: ``(1, H, W, D)``, any dtype.

        Returns:
            ``(K, H, W, D)`` float32 in [0, 1]: one channel a window, a single one for percentiles and slice minima and
            maxima.
        """
        require_one_channel(img)
        if (stored := self._stored_range(img)) is not None:
            return scale_stored_range(img, stored)
        if self.hu_windows is None:
            return self.percentile_window(img) if self.windows == "percentile" else self.slice_min_max(img)
        recorded = img.meta.get("intensity") if isinstance(img, MetaTensor) else None
        # what is recorded may be wrong: voxels below 0 were not scaled so
        if recorded in STORED_RANGES and not self.assume_hu and voxel_range(img)[0] >= 0:
            raise IntensityUnitsError(
                "HU windows were asked for voxels that were scaled before they were stored and have no units: use "
                "windows='auto'."
            )
        modality, note = self._resolve_modality(img)
        if modality == "mr" and self.windows == "auto":
            out = self.percentile_window(img)
        elif modality == "mr" and not self.assume_hu:
            raise IntensityUnitsError(
                "HU windows were asked for MR, which has no such units: use windows='percentile'."
            )
        else:
            out = self.hu_windows(img)
        if note and isinstance(out, MetaTensor):
            append_note(out.meta, note)
        return out

    def _stored_range(self, img: NdarrayOrTensor) -> str | None:
        """Name of the range that the voxels were scaled to before they were stored, where that decides."""
        if self.windows in tuple(STORED_RANGES):
            return str(self.windows)
        recorded = img.meta.get("intensity") if isinstance(img, MetaTensor) else None
        return recorded if self.windows == "auto" and not self.assume_hu and recorded in STORED_RANGES else None

    def _resolve_modality(self, img: NdarrayOrTensor) -> tuple[str, str | None]:
        """Return "ct" or "mr", and a note where that was inferred from the voxels."""
        if self.modality != "auto":
            return self.modality, None
        recorded, units = (img.meta.get(i) if isinstance(img, MetaTensor) else None for i in ("modality", "units"))
        if recorded == "CT" and not self.assume_hu and units == "unstated":
            return "ct", self._guess_units(img)
        if recorded in ("CT", "MR"):
            return recorded.lower(), None
        if self.assume_hu:
            return "ct", None
        if recorded is not None:
            raise IntensityUnitsError(
                f"the volume's modality is {recorded}; CT and MR are supported. Choose the scaling with modality='ct', "
                "modality='mr' or windows='percentile'."
            )
        return "ct", self._guess_modality(img)

    def _guess_modality(self, img: NdarrayOrTensor) -> str:
        """Return the note on a volume of unknown modality that looks like CT in HU; refuse others."""
        lowest, _ = voxel_range(img)
        if not looks_like_hu(img):
            raise IntensityUnitsError(
                f"the file names no modality, and its voxels, which start at {lowest:g}, do not look like Hounsfield "
                "units (few or none of them are air or lung). Pass --modality mr, or --modality ct for a CT in HU."
            )
        return f"The file names no modality; voxels reach down to {lowest:g}, so it was taken for CT in HU."

    def _guess_units(self, img: NdarrayOrTensor) -> str:
        """Return the note on a CT of unstated units that looks like HU; refuse others."""
        lowest, _ = voxel_range(img)
        if not looks_like_hu(img):
            raise IntensityUnitsError(
                f"the header does not state the units of this CT, and its voxels, which start at {lowest:g}, do not "
                "look like Hounsfield units (few or none of them are air or lung). Use windows='percentile', or "
                "assume_hu=True if they are HU."
            )
        return f"The header does not state the units of this CT; its voxels start at {lowest:g} and were taken for HU."


class PercentileWindowd(EachKeyd):
    """Dictionary-based wrapper of :class:`PercentileWindow`.

    Args:
        keys: volumes.
        lower: see :class:`PercentileWindow`.
        upper: see :class:`PercentileWindow`.
        allow_missing_keys: skip absent keys.
    """

    backend = PercentileWindow.backend

    def __init__(
        self, keys: KeysCollection, lower: float = 0.5, upper: float = 99.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, PercentileWindow(lower, upper), allow_missing_keys)


class IntensityWindowsd(EachKeyd):
    """Dictionary-based wrapper of :class:`IntensityWindows`.

    Args:
        keys: volumes.
        modality: see :class:`IntensityWindows`.
        windows: see :class:`IntensityWindows`.
        assume_hu: see :class:`IntensityWindows`.
        allow_missing_keys: skip absent keys.
    """

    backend = IntensityWindows.backend

    def __init__(
        self,
        keys: KeysCollection,
        modality: str = "auto",
        windows: Windows = "auto",
        assume_hu: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, IntensityWindows(modality, windows, assume_hu), allow_missing_keys)


PercentileWindowD = PercentileWindowDict = PercentileWindowd
IntensityWindowsD = IntensityWindowsDict = IntensityWindowsd
