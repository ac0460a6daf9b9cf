# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The errors of this package.

All derive from :class:`MedPrunerError`. Messages say what was found, what was expected and what to do. They contain no
patient data, in particular no DICOM values that could identify a person.
"""

from __future__ import annotations

from monai_medpruner.terminal_text import printable

__all__ = [
    "ArchiveWorkerError",
    "BenchmarkError",
    "BudgetError",
    "CheckpointError",
    "DuplicateSlicesError",
    "EmptyFolderError",
    "EncodedStudyError",
    "EngineError",
    "IncompletePredictionsError",
    "IncompleteSeriesError",
    "IntensityUnitsError",
    "LoaderWorkerError",
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
    "VolumeLimitError",
    "VolumeReadError",
    "VolumeShapeError",
    "ZeroVarianceError",
    "describe_error",
    "own_error",
]


class MedPrunerError(Exception):
    """Base class of all errors of this package. Its text has no control characters, also those of a file's name."""

    def __str__(self) -> str:
        return printable(super().__str__())


def own_error(raised: BaseException | None) -> MedPrunerError | None:
    """Return the error of this package that an exception is or wraps (MONAI wraps errors); None if there is none."""
    while raised is not None and not isinstance(raised, MedPrunerError):
        raised = raised.__cause__
    return raised


def describe_error(error: BaseException) -> tuple[str, str]:
    """Return class name and message of an error, or of the error of this package that it wraps."""
    shown = own_error(error) or error
    return type(shown).__name__, str(shown)


def ends_run(error: BaseException) -> bool:
    """Return whether an error concerns a whole run, and not one volume or question."""
    whole = (CheckpointError, EngineUnreachableError, OutputFolderError, PackageVersionError, UnsupportedModelError)
    return isinstance(own_error(error), whole)


class SettingsError(MedPrunerError, ValueError):
    """A setting or argument has an invalid value."""


class BudgetError(SettingsError):
    """A budget of visual tokens is below what one slice keeps at least."""


class PackageVersionError(MedPrunerError, ImportError):
    """A required package is missing or has the wrong version."""


class OutputFolderError(MedPrunerError, OSError):
    """The output folder cannot be used."""


class MixedRunError(OutputFolderError):
    """The output folder contains predictions of a run with other settings, or of a run that is still active."""


class IncompletePredictionsError(OutputFolderError):
    """Some items of a finished run have no prediction."""


class FailedVolumesError(MedPrunerError, RuntimeError):
    """Some volumes of a run failed; the others were answered."""


class EncodedStudyError(MedPrunerError, OSError):
    """A file is not an encoded study, or is a damaged one."""


# data sets


class LoaderWorkerError(MedPrunerError, RuntimeError):
    """A process of the data loader ended while it loaded a volume."""


class ArchiveWorkerError(MedPrunerError, RuntimeError):
    """A process of an archive run ended while it worked on a study, or could not start."""


class BenchmarkError(MedPrunerError, ValueError):
    """The files of a benchmark are missing or malformed."""


class MissingImagesError(BenchmarkError):
    """Images of a benchmark are missing from its folder."""


# reading


class VolumeReadError(MedPrunerError, OSError):
    """A volume could not be read from its files."""


class UnreadableVolumeError(VolumeReadError):
    """A file is missing, truncated, empty, in an unknown format, or lacks fields needed to place its voxels."""


class VolumeLimitError(VolumeReadError):
    """A volume is larger than a setting allows."""


class EmptyFolderError(VolumeReadError):
    """A folder contains no image file."""


class MixedSeriesError(VolumeReadError):
    """A folder contains several DICOM series and none was chosen."""


class IncompleteSeriesError(VolumeReadError):
    """Some files of a DICOM series cannot be used as slices."""


class DuplicateSlicesError(VolumeReadError):
    """Two slices have the same position."""


# the volume itself


class VolumeError(MedPrunerError, ValueError):
    """A volume was read but cannot be processed as requested."""


class VolumeShapeError(VolumeError):
    """The volume has an unsupported shape, number of channels or voxel type."""


class NonFiniteVoxelsError(VolumeError):
    """The volume contains NaN or infinite voxels."""


class ZeroVarianceError(VolumeError):
    """All voxels have the same value."""


class SpacingError(VolumeError):
    """The voxel spacing is zero, negative or not finite."""


class TooFewSlicesError(VolumeError):
    """The volume has a single slice, but several are required."""


class IntensityUnitsError(VolumeError):
    """HU windows were requested for voxels that cannot be Hounsfield units."""


class SliceGeometryError(VolumeError):
    """The slices do not form the regular grid required by the operation (tilt, uneven gaps)."""


# questions and models


class QuestionError(MedPrunerError, ValueError):
    """A question is empty, too long, or not text."""


class PromptError(MedPrunerError, ValueError):
    """The inputs of a model are inconsistent (placeholders, masks, grids)."""


class UnsupportedModelError(MedPrunerError, ValueError):
    """No model family supports the model."""


class EngineError(MedPrunerError, OSError):
    """A language engine in another process refuses a request, or serves another model."""


class EngineUnreachableError(EngineError):
    """A language engine in another process does not answer."""


class CheckpointError(MedPrunerError, OSError):
    """A checkpoint could not be loaded: it is missing, gated, unreachable, or incomplete."""


class ModelMemoryError(MedPrunerError, MemoryError):
    """A model needs more memory than is free on the device."""


class NonFiniteAttentionError(MedPrunerError, ArithmeticError):
    """The attention of the vision encoder is not finite, so tokens cannot be scored."""


# requests to the MONAI Label app


class RequestError(MedPrunerError, ValueError):
    """A request to the app is invalid."""


class UnknownStudyError(RequestError):
    """A request names a study that does not exist."""


class UnknownTaskError(RequestError):
    """A request names an unknown task."""
