# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The keep-maps of a run as files for viewers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_medpruner.errors import MedPrunerError, OutputFolderError
from monai_medpruner.report.dicom_seg import write_dicom_seg
from monai_medpruner.report.keep_map import KEEP_LABELS, keep_map, write_nifti
from monai_medpruner.results import StudyRecord, read_results

__all__ = ["recorded_arguments", "write_keep_maps"]

_DESCRIPTION = ", ".join(f"{value} {name}" for name, value in KEEP_LABELS.items())
_UNPLACED = ("npy", "images")


def write_keep_maps(folder: str | Path) -> Iterator[tuple[Path | None, str | None]]:
    """Write the keep-maps of all studies of a run to ``keep_maps/`` in its folder.

    ``NAME.nii.gz`` is the label map (:data:`~.keep_map.KEEP_LABELS`), ``NAME_importance.nii.gz`` the importance, where
    there are scores, and ``NAME.seg.dcm`` the label map as a DICOM segmentation where the study was DICOM. NAME is the
    record's.

    Args:
        folder: output folder of a run.

    Yields:
        The path of each file as it is written, and a note, or None; for a file that cannot be written, None and why.

    Raises:
        OutputFolderError: the folder is not that of a run, or cannot be written.
    """
    results = read_results(folder)
    target = Path(folder) / "keep_maps"
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputFolderError(f"cannot write to {target}: {error.strerror}") from error
    for name in results.record_names:
        yield from _write(results.record(name), target / name)


def _write(record: StudyRecord, target: Path) -> Iterator[tuple[Path | None, str | None]]:
    found = keep_map(record)
    labels = target.with_name(f"{target.name}.nii.gz")
    write_nifti(found.labels, found.affine, labels, _DESCRIPTION)
    unplaced = record.source in _UNPLACED
    yield labels, "the image has no geometry: the maps are on a grid of 1 mm" if unplaced else None
    if found.importance is None:
        yield None, f"{record.name} has no map of importance: its pruner computed no scores"
    else:
        importance = target.with_name(f"{target.name}_importance.nii.gz")
        write_nifti(found.importance, found.affine, importance, "importance, 1 is the mean of a slice, 0 not read")
        yield importance, None
    if record.source == "DICOM":
        file = target.with_name(f"{target.name}.seg.dcm")
        loaded = recorded_arguments(record.settings, "LoadVolume")
        series = {one: loaded.get(one) for one in ("series_uid", "series_part")}
        try:
            write_dicom_seg(found.labels, Path(record.image).expanduser(), file, **series)
        except OutputFolderError:
            raise
        except MedPrunerError as error:
            yield None, f"{record.name} has no DICOM segmentation: {error}"
        else:
            yield file, None


def recorded_arguments(settings: Mapping[str, Any], transform: str) -> dict[str, Any]:
    """Return the arguments of a preprocessing transform, as a study's settings have them; empty where it did not run.

    Args:
        settings: of a record.
        transform: name of its class.
    """
    for stage in settings.get("preprocessing") or ():
        for step in stage.get("transforms", ()):
            if step.get("name") == transform:
                return dict(step["arguments"])
    return {}
