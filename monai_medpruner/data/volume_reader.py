# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading a volume from files of any supported kind, truthfully: nothing zero-filled, reordered or left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data.image_reader import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_medpruner.data.dicom_decoding import DicomDecoding
from monai_medpruner.data.dicom_series import read_dicom
from monai_medpruner.data.image_stack import is_image_folder, read_image_folder, read_npy
from monai_medpruner.data.nifti import NIFTI_SUFFIXES, read_nifti
from monai_medpruner.data.reading_limits import ReadingLimits
from monai_medpruner.data.series_files import is_dicom
from monai_medpruner.errors import MedPrunerError, SettingsError, UnreadableVolumeError

__all__ = ["Volume", "VolumeReader", "volume_id"]

_PAIR_SUFFIXES = (".hdr", ".img")


@dataclass(frozen=True)
class Volume:
    """A volume as read.

    Attributes:
        voxels: (X, Y, Z), or (X, Y, Z, C) for a 4-D file; float32.
        affine: (4, 4) float64, RAS mm, of the voxel axes.
        meta: further metadata from the reader.
    """

    voxels: np.ndarray
    affine: np.ndarray
    meta: dict[str, Any]


class VolumeReader(ImageReader):
    """Reader of NIfTI files (by nibabel), DICOM series (files decoded by ITK, ordered here) and image stacks.

    Image stacks are ``.npy`` files (1, depth, height, width) of floats in [0, 1], and folders of PNG or JPEG slices,
    numbered in their names. They have no geometry, which is recorded in a note.

    Voxels are float32 after the file's own scaling (``scl_slope`` and ``scl_inter``, RescaleSlope and
    RescaleIntercept), which represents HU exactly; integers beyond 2**24 are rounded, which is recorded in a note. The
    axes of the array are those of the file: for DICOM, columns, rows, slices, as in :py:class:`monai.data.ITKReader`,
    with slices sorted along +normal. Neighboring voxels of a slice are neighbors in memory (Fortran order).

    Metadata, besides MONAI's ``affine``, ``original_affine``, ``spatial_shape``, ``space`` (RAS) and
    ``original_channel_dim``; nothing else is copied from the headers, because they identify patients:

        - ``volume_id``: see :py:func:`volume_id`.
        - ``notes``: list of str, irregularities and how they were handled.
        - ``nonuniform``: whether the affine does not place every slice exactly (uneven gaps, shifted slices).
        - ``slice_axis`` (DICOM): 2, the slice axis of the array.
        - ``slice_positions_mm`` (DICOM): position of each slice along the slice normal in mm, its ImagePositionPatient
          projected on the normal. For even gaps, ``affine @ (0, 0, k, 1)`` projected on the cross product of
          the affine's first two columns is the same.
        - ``instance_order`` (DICOM, if stated): whether instance numbers are "rising" or "falling" along the slices, or
          "mixed".
        - ``gantry_tilt_degrees`` (DICOM, only if tilted): angle between the stacking direction and the normal.
        - ``modality`` (DICOM, if stated): such as ``"CT"``.
        - ``intensity`` (image stacks): "unit" for voxels stored in [0, 1], "uint8" for 0 to 255.

    The affine's third column is the mean step between slices: under gantry tilt it is not perpendicular to the
    other two.

    Args:
        series_uid: SeriesInstanceUID to read from a DICOM folder that contains several series.
        series_part: volume to read of a series that contains several, such as contrast phases, counted from 1.
        decoding: where and within what limits DICOM files are decoded; None for the defaults of
            :py:class:`DicomDecoding`, in another process, or what its environment variables say.
        gray_slices: convert slices of an image folder that are in color; see :py:func:`read_image_folder`.
        drop_odd_slices: leave out slices of an image folder that have not the size of most.
        limits: the largest volume to read; None for the defaults of :py:class:`ReadingLimits`.

    Raises:
        SettingsError: if ``series_uid`` or ``series_part`` has the wrong type, or an environment variable is not valid.

    Note:
        :py:class:`monai.transforms.LoadImage` converts this reader's errors to RuntimeError if the reader is passed to
        its constructor; :py:class:`monai_medpruner.transforms.LoadVolume` raises them unchanged.
    """

    def __init__(
        self,
        series_uid: str | None = None,
        decoding: DicomDecoding | None = None,
        series_part: int | None = None,
        gray_slices: bool = False,
        drop_odd_slices: bool = False,
        limits: ReadingLimits | None = None,
    ) -> None:
        super().__init__()
        if series_uid is not None and not isinstance(series_uid, str):
            raise SettingsError(f"series_uid must be a string, found {type(series_uid).__name__}")
        if series_part is not None and (isinstance(series_part, bool) or not isinstance(series_part, int)):
            raise SettingsError(f"series_part must be a whole number, found {series_part!r}")
        self.series_uid = series_uid or None
        self.series_part = series_part
        self.gray_slices = gray_slices
        self.drop_odd_slices = drop_odd_slices
        self.limits = limits or ReadingLimits()
        self.decoding = decoding or DicomDecoding.from_environment()

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return whether every path is a NIfTI or .npy file by name, a folder, or a DICOM file by content."""
        paths = [Path(i) for i in ensure_tuple(filename)]
        return all(_is_nifti(i) or _is_npy(i) or i.is_dir() or (i.is_file() and is_dicom(i)) for i in paths)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Volume:
        """Read one volume.

        Args:
            data: a NIfTI file, a DICOM folder, a DICOM file (a stack of one slice), a ``.npy`` file, or a folder of PNG
                or JPEG slices; or a sequence of one of these.
            kwargs: ignored; part of MONAI's reader interface.

        Raises:
            SettingsError: if ``data`` is not one path, or ``series_uid`` is set for a file that is not DICOM.
            VolumeReadError: a subclass, if the files are not a complete volume; see :py:func:`read_dicom`,
                :py:func:`read_nifti`, :py:func:`read_npy` and :py:func:`read_image_folder`.
            VolumeError: a subclass, if the volume does not have scalar voxels on parallel slices.
        """
        paths = ensure_tuple(data)
        if len(paths) != 1 or not isinstance(paths[0], (str, os.PathLike)):
            raise SettingsError(f"expected one path, found {[type(i).__name__ for i in paths]}")
        path = Path(paths[0]).expanduser()
        try:
            source, (voxels, affine, meta) = self._read(path)
            return Volume(voxels, affine, {**meta, "source": source})
        except MedPrunerError:
            raise
        except OSError as error:  # such as no permission
            raise UnreadableVolumeError(f"{path.name} cannot be opened: {error.strerror}") from error

    def _read(self, path: Path) -> tuple[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
        """Return the source format, and the voxels, affine and metadata."""
        if not path.exists():
            raise UnreadableVolumeError(f"{path} does not exist. Pass a NIfTI file or a DICOM folder.")
        if _is_nifti(path) and path.is_file():
            self._refuse_series(path, "a NIfTI file")
            return "NIfTI", read_nifti(path, self.limits)
        if _is_npy(path) and path.is_file() and path.stat().st_size:
            self._refuse_series(path, "a .npy file")
            return "npy", read_npy(path, self.limits)
        if path.is_dir() and is_image_folder(path):
            self._refuse_series(path, "a folder of images")
            return "images", read_image_folder(path, self.gray_slices, self.drop_odd_slices, self.limits)
        if path.is_dir() or is_dicom(path):
            return "DICOM", read_dicom(path, self.series_uid, self.decoding, self.series_part, self.limits)
        if path.suffix.lower() in _PAIR_SUFFIXES and path.stat().st_size:
            raise UnreadableVolumeError(
                f"{path.name}: pairs of .hdr and .img (Analyze, NIfTI) are not supported. Convert it to one NIfTI file."
            )
        size = "an empty file" if path.stat().st_size == 0 else "of an unknown format"
        raise UnreadableVolumeError(
            f"{path.name} is {size}. Pass a NIfTI file (.nii, .nii.gz) or a DICOM folder; .npy files and folders of "
            "PNG or JPEG slices are supported as well."
        )

    def _refuse_series(self, path: Path, kind: str) -> None:
        for name, value in (("series_uid", self.series_uid), ("series_part", self.series_part)):
            if value is not None:
                raise SettingsError(f"{name} chooses from a DICOM folder, but {path.name} is {kind}")

    def get_data(self, img: Volume) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the voxels, (X, Y, Z) or (X, Y, Z, C) float32, and the metadata of a volume."""
        meta = {
            **img.meta,
            "volume_id": volume_id(img.voxels, img.affine),
            MetaKeys.AFFINE: img.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.voxels.shape[:3]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if img.voxels.ndim == 4 else float("nan"),
        }
        return img.voxels, meta


def volume_id(voxels: np.ndarray, affine: np.ndarray) -> str:
    """Return an id derived from the content of a volume: voxels and affine, but not the path.

    Args:
        voxels: array of any shape.
        affine: (4, 4), mm; its entries are rounded to 1e-4.

    Returns:
        the first 16 hexadecimal digits of the SHA-256 of shape, type, rounded affine and voxels.
    """
    rounded = np.round(np.asarray(affine, dtype=np.float64), 4) + 0.0  # -0.0 becomes 0.0
    digest = hashlib.sha256(f"{voxels.shape} {voxels.dtype.str} {rounded.tolist()}".encode())
    digest.update(np.ascontiguousarray(voxels.T).data)  # no copy of an array in Fortran order
    return digest.hexdigest()[:16]


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"
