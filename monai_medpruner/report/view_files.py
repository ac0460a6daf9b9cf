# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A study in NiiVue: its image, its keep-map, and a page with three planes, on a server for this machine alone."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.report.keep_map import KeepMap, file_axes, keep_map, nifti_image, on_file_grid
from monai_medpruner.report.niivue import niivue_module
from monai_medpruner.report.report_data import RunOfStudy, study_names, study_of_run
from monai_medpruner.report.slice_reasons import slice_reasons
from monai_medpruner.report.study_image import recorded_volume, study_mask, study_windows
from monai_medpruner.report.view_page import view_page
from monai_medpruner.report.view_server import LocalServer, ServedFile
from monai_medpruner.results import StudyRecord, read_results

__all__ = ["study_server", "view_files"]

_HIGH_IMPORTANCE = 99.0  # percentile that the heat map ends at: a few sinks have much more


def study_server(
    folder: str | Path, *, study: str | None = None, mask: Path | None = None, port: int = 0
) -> LocalServer:
    """Read a study of a run, and return a server of its page. It answers once ``serve_forever`` is called.

    Args:
        folder: output folder of a run.
        study: beginning of a record's name, for one study of several.
        mask: label map of a lesion on the grid of the image.
        port: of this machine; 0 for any free one.

    Raises:
        OutputFolderError: the folder is not that of a run, or the image was changed.
        PackageVersionError: NiiVue is not installed.
        SettingsError: no study has that name, several have it, or the port cannot be used.
        VolumeError: the mask is on another grid.
        VolumeReadError: the image or the mask cannot be read.
    """
    module = niivue_module()
    results = read_results(folder)
    names = study_names(results, study)
    if len(names) > 1:
        raise SettingsError(
            f"the viewer shows one study, and {len(names)} of the run fit: choose one with --study, the beginning of "
            'what its lines have as "record"'
        )
    files = view_files(study_of_run(results, names[0]), mask)
    return LocalServer({**files, "niivue.js": ServedFile(module, "text/javascript")}, port)


def view_files(run: RunOfStudy, mask: Path | None = None) -> dict[str, ServedFile]:
    """Return the page of a study and the volumes that it shows, all on the grid of the study's file.

    Args:
        run: the study.
        mask: label map of a lesion on the grid of the image.

    Returns:
        By name: the empty name, the page; ``volume.nii``, in the units of the file; ``labels.nii.gz`` and, where there
        are scores, ``importance.nii.gz``, the :class:`~.keep_map.KeepMap`; ``mask.nii.gz``, 1 in the lesion.

    Raises:
        OutputFolderError: the image was changed.
        VolumeError: the mask is on another grid.
        VolumeReadError: the image or the mask cannot be read.
    """
    record = run.record
    volume, kept = recorded_volume(record), keep_map(record)
    lesion = None if mask is None else study_mask(mask, record) > 0
    shown = {"labels.nii.gz": kept.labels}
    if kept.importance is not None:
        shown["importance.nii.gz"] = kept.importance
    if lesion is not None:
        shown["mask.nii.gz"] = on_file_grid(lesion, record.geometry).astype(np.uint8)
    windows = study_windows(record, volume)
    files = {name: ServedFile(_nifti(voxels, kept.affine, packed=True)) for name, voxels in shown.items()}
    files["volume.nii"] = ServedFile(_nifti(_smallest(volume[0]), kept.affine))
    page = view_page(run, _page_data(record, kept, windows, lesion))
    return {"": ServedFile(page.encode(), "text/html; charset=utf-8"), **files}


def _page_data(
    record: StudyRecord, kept: KeepMap, windows: list[tuple[str, tuple[float, float]]], lesion: np.ndarray | None
) -> dict[str, Any]:
    """What the script of the page needs besides the volumes."""
    axis, flipped = file_axes(record.geometry)[2]
    high = None
    if kept.importance is not None:
        read = [one.importance.numpy() for one in record.slices if one.importance is not None]
        high = float(np.percentile(np.concatenate(read), _HIGH_IMPORTANCE))
    return {
        "shape": list(kept.labels.shape),
        "toMm": kept.affine.tolist(),
        "toVoxel": np.linalg.inv(kept.affine).tolist(),
        "sliceAxis": axis,
        "sliceFlipped": flipped,
        "slices": slice_reasons(record, {}),
        "windows": [{"name": name, "low": low, "high": high} for name, (low, high) in windows],
        "unit": " HU" if any("HU" in name for name, _ in windows) else "",
        "highImportance": high,
        "mask": lesion is not None,
        "start": _on_file(record, _start(record, lesion)),
    }


def _start(record: StudyRecord, lesion: np.ndarray | None) -> tuple[int, int, int]:
    """Row, column and slice to begin with: the middle of the lesion, else that of the middle one of the kept slices."""
    height, width, _ = record.geometry.shape
    if lesion is None or not lesion.any():
        (top, bottom), (left, right) = record.geometry.crop or ((0, height), (0, width))
        return (top + bottom) // 2, (left + right) // 2, record.slice_indices[len(record.slice_indices) // 2]
    sizes = lesion.sum((0, 1))
    largest = np.flatnonzero(sizes == sizes.max())
    index = int(largest[len(largest) // 2])
    inside = np.argwhere(lesion[..., index])
    row, column = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
    return int(row), int(column), index


def _on_file(record: StudyRecord, place: tuple[int, int, int]) -> list[int]:
    """Turn row, column and slice into a voxel of the file."""
    voxel = [0, 0, 0]
    for (axis, flipped), index, length in zip(file_axes(record.geometry), place, record.geometry.shape, strict=True):
        voxel[axis] = length - 1 - index if flipped else index
    return voxel


def _smallest(volume: torch.Tensor) -> np.ndarray:
    """Return the voxels as int16 where that is exact, as it is for nearly all CT; else as they are."""
    voxels = torch.as_tensor(volume).numpy()
    limits = np.iinfo(np.int16)
    if voxels.min() >= limits.min and voxels.max() <= limits.max:
        whole = voxels.astype(np.int16)
        if np.array_equal(whole, voxels):
            return whole
    return voxels


def _nifti(voxels: np.ndarray, affine: np.ndarray, packed: bool = False) -> bytes:
    content = nifti_image(voxels, affine).to_bytes()
    return gzip.compress(content, compresslevel=1, mtime=0) if packed else content
