# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Loading a volume from a file or folder, with this package's own errors."""

from __future__ import annotations

import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Transform
from monai.utils import ImageMetaKey, TransformBackends

from monai_medpruner.data.reading_limits import ReadingLimits
from monai_medpruner.data.volume_reader import VolumeReader
from monai_medpruner.transforms.each_key import EachKeyd

__all__ = ["LoadVolume", "LoadVolumeD", "LoadVolumeDict", "LoadVolumed"]


class LoadVolume(Transform):
    """Load a volume, channel first, with :py:class:`monai_medpruner.data.VolumeReader`.

    Unlike :py:class:`monai.transforms.LoadImage`, it tries no other reader after a failure and raises the reader's
    typed errors (as ``__cause__`` of a RuntimeError where :py:class:`monai.transforms.Compose` runs it).

    Args:
        series_uid: SeriesInstanceUID to read from a DICOM folder that holds several series.
        series_part: volume to read of a series that holds several, such as contrast phases, counted from 1.
        gray_slices: convert slices of a PNG or JPEG folder that are in color to gray, with a note.
        drop_odd_slices: leave out slices of a PNG or JPEG folder that have not the size of most, with a note.
        limits: the largest volume to read; None for the defaults. They are no part of a study's key or record.
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(
        self,
        series_uid: str | None = None,
        series_part: int | None = None,
        gray_slices: bool = False,
        drop_odd_slices: bool = False,
        limits: ReadingLimits | None = None,
    ) -> None:
        self.series_uid = series_uid
        self.series_part = series_part
        self.gray_slices = gray_slices
        self.drop_odd_slices = drop_odd_slices
        self.reader = VolumeReader(
            series_uid,
            series_part=series_part,
            gray_slices=gray_slices,
            drop_odd_slices=drop_odd_slices,
            limits=limits,
        )

    def __call__(self, path: PathLike) -> torch.Tensor:
        """Read one volume.

        Args:
            path: a NIfTI or .npy file, a folder of DICOM, PNG or JPEG slices, or a DICOM file.

        Returns:
            (C, X, Y, Z) float32, C = 1 except for a 4-D file, in the file's own units (HU for CT): a MetaTensor with
            the reader's metadata and ``filename_or_obj``, or a tensor where MONAI is told not to track metadata.

        Raises:
            MedPrunerError: in the kinds that :py:meth:`monai_medpruner.data.VolumeReader.read` names.
        """
        voxels, meta = self.reader.get_data(self.reader.read(path))
        tensor = torch.from_numpy(voxels)
        tensor = tensor[None] if tensor.ndim == 3 else tensor.movedim(-1, 0)
        if not get_track_meta():
            return tensor
        meta[ImageMetaKey.FILENAME_OR_OBJ] = str(path)
        return MetaTensor(tensor, meta=meta)


class LoadVolumed(EachKeyd):
    """Dictionary form of :py:class:`LoadVolume`: replaces the path under each key by the volume.

    Args:
        keys: keys of the paths.
        series_uid: see :py:class:`LoadVolume`.
        series_part: see :py:class:`LoadVolume`.
        gray_slices: see :py:class:`LoadVolume`.
        drop_odd_slices: see :py:class:`LoadVolume`.
        limits: see :py:class:`LoadVolume`.
        allow_missing_keys: whether a missing key is passed over.
    """

    backend = LoadVolume.backend

    def __init__(
        self,
        keys: KeysCollection,
        series_uid: str | None = None,
        series_part: int | None = None,
        gray_slices: bool = False,
        drop_odd_slices: bool = False,
        limits: ReadingLimits | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        array_form = LoadVolume(series_uid, series_part, gray_slices, drop_odd_slices, limits)
        super().__init__(keys, array_form, allow_missing_keys)


LoadVolumeD = LoadVolumeDict = LoadVolumed
