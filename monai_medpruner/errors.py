# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Every error this package raises on purpose.

All derive from :class:`MedPrunerError`. Each message says what was found, what was expected and what to do. No message
holds patient data: DICOM values that could identify a person never enter one.
"""

from __future__ import annotations

__all__ = [
    "BenchmarkError",
    "CheckpointError",
    "DuplicateSlicesError",
    "EmptyFolderError",
    "IncompletePredictionsError",
    "IncompleteSeriesError",
    "IntensityUnitsError",
    "MedPrunerError",
    "MissingImagesError",
    "MixedRunError",
    "MixedSeriesError",
    "ModelMemoryError",
    "NonFiniteAttentionError",
    "NonFiniteVoxelsError",
    "OutputFolderError",
    "PackageVersionError",
    "PromptError",
    "QuestionError",
    "RequestError",
    "SettingsError",
    "SliceGeometryError",
    "SpacingError",
    "TooFewSlicesError",
    "UnknownStudyError",
    "UnknownTaskError",
    "UnreadableVolumeError",
    "UnsupportedModelError",
    "VolumeError",
    "VolumeReadError",
    "VolumeShapeError",
    "ZeroVarianceError",
    "describe_error",
    "own_error",
]


class MedPrunerError(Exception):
    """Base class of all errors of this package."""


def own_error(raised: BaseException | None) -> MedPrunerError | None:
    """The error of this package that an exception is, or that MONAI wrapped on its way; None where it is another."""
    while raised is not None and not isinstance(raised, MedPrunerError):
        raised = raised.__cause__
    return raised


def describe_error(error: BaseException) -> tuple[str, str]:
    """The class and the message of an error; of this package's own where MONAI wrapped one on its way."""
    shown = own_error(error) or error
    return type(shown).__name__, str(shown)


class SettingsError(MedPrunerError, ValueError):
    """A parameter is outside its allowed values."""


class PackageVersionError(MedPrunerError, ImportError):
    """A required package is missing or has the wrong version."""


class OutputFolderError(MedPrunerError, OSError):
    """The output folder cannot be used as asked."""


class MixedRunError(OutputFolderError):
    """An output folder holds predictions of a run with other settings, or of one that is still writing."""


class IncompletePredictionsError(OutputFolderError):
    """Items of a finished run have no prediction."""


# data sets


class BenchmarkError(MedPrunerError, ValueError):
    """The files of a benchmark are missing, or do not hold what its format promises."""


class MissingImagesError(BenchmarkError):
    """Images that a benchmark's questions are about are not in its folder."""


# reading


class VolumeReadError(MedPrunerError, OSError):
    """Files could not be turned into a volume."""


class UnreadableVolumeError(VolumeReadError):
    """A file is missing, truncated, empty, of an unknown format, or lacks what is needed to place its voxels."""


class EmptyFolderError(VolumeReadError):
    """A folder holds no image file."""


class MixedSeriesError(VolumeReadError):
    """A folder holds several DICOM series and none was chosen."""


class IncompleteSeriesError(VolumeReadError):
    """Not every file of a DICOM series became a slice."""


class DuplicateSlicesError(VolumeReadError):
    """Two slices lie at the same position."""


# the volume itself


class VolumeError(MedPrunerError, ValueError):
    """A volume was read but cannot be processed as asked."""


class VolumeShapeError(VolumeError):
    """Wrong number of dimensions or channels."""


class NonFiniteVoxelsError(VolumeError):
    """The volume holds NaN or infinite voxels."""


class ZeroVarianceError(VolumeError):
    """All voxels have the same value."""


class SpacingError(VolumeError):
    """The voxel spacing is zero, negative or not finite."""


class TooFewSlicesError(VolumeError):
    """The volume has a single slice where a stack is needed."""


class IntensityUnitsError(VolumeError):
    """HU windows were asked for voxels that cannot be Hounsfield units."""


class SliceGeometryError(VolumeError):
    """The slices do not form the regular grid that the requested operation needs (tilt, uneven gaps)."""


# questions and models


class QuestionError(MedPrunerError, ValueError):
    """A question is empty, too long, or not text."""


class PromptError(MedPrunerError, ValueError):
    """A model's inputs do not fit together (placeholders, masks, grids)."""


class UnsupportedModelError(MedPrunerError, ValueError):
    """No model family is registered for a model."""


class CheckpointError(MedPrunerError, OSError):
    """A checkpoint could not be loaded: not found, gated, unreachable, or incomplete."""


class ModelMemoryError(MedPrunerError, MemoryError):
    """A model needs more memory than the device has free."""


class NonFiniteAttentionError(MedPrunerError, ArithmeticError):
    """The vision encoder's attention overflowed, so that no token can be scored."""


# requests to the MONAI Label app


class RequestError(MedPrunerError, ValueError):
    """A request to the app is not as it must be."""


class UnknownStudyError(RequestError):
    """A request names a study that is not there."""


class UnknownTaskError(RequestError):
    """A request names a task that the app does not have."""
