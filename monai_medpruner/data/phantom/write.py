# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Resumable writer of phantom benchmarks: volumes, masks, questions, reports and ground truth."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.data.phantom.anatomy import ORGANS
from monai_medpruner.data.phantom.findings import FindingsPhantom, generate_findings
from monai_medpruner.data.phantom.findings_questions import findings_questions, findings_report
from monai_medpruner.data.phantom.findings_settings import FindingsSettings
from monai_medpruner.data.phantom.generate import Phantom, generate_phantom
from monai_medpruner.data.phantom.head import HEAD_LABELS
from monai_medpruner.data.phantom.questions import M3D_VQA_COLUMNS, phantom_questions, phantom_report
from monai_medpruner.data.phantom.settings import PhantomSettings
from monai_medpruner.errors import OutputFolderError, SettingsError

__all__ = ["findings_truth", "phantom_command", "phantom_seed", "phantom_truth"]

_FORMAT = 1  # version of the files and of the phantom of each seed; increase it if either changes
_SEED_STRIDE = 36 * 25_000  # a multiple of the 36 seeds over which cases are balanced
_SETTINGS_FILE, _QUESTIONS_FILE = "settings.json", "M3D_VQA_test.csv"
_REPORTS_FILE, _TRUTH_FILE = "reports.jsonl", "phantoms.jsonl"
_FOLDERS = ("volumes", "organs", "lesions")


def phantom_command(
    count: int, seed: int, out: Path, settings: PhantomSettings | FindingsSettings | None = None
) -> None:
    """Write a benchmark of phantoms; an interrupted run resumes.

    Files are written atomically. ``out`` then contains ``volumes/``, ``organs/`` and ``lesions/``
    (``phantom_000000.nii.gz``, …; voxels int16 in HU, masks uint8), ``M3D_VQA_test.csv``, ``reports.jsonl``
    (``id, image, findings, impression``), ``phantoms.jsonl`` (:func:`phantom_truth`, :func:`findings_truth`) and
    ``settings.json``. The same arguments give the same files.

    Args:
        count: number of volumes, 1 to 900,000.
        seed: seed of the benchmark, at least 0; phantoms of different seeds differ.
        out: a new or empty folder, or the folder of an earlier run with the same arguments.
        settings: ranges to sample from; their type says which phantoms are written.

    Raises:
        SettingsError: ``count`` or ``seed`` is invalid.
        OutputFolderError: the folder contains other files, or cannot be written.
    """
    settings = settings or PhantomSettings()
    if not 1 <= count <= _SEED_STRIDE:
        raise SettingsError(f"count must be within [1, {_SEED_STRIDE}], got {count}.")
    phantom_seed(seed, 0)
    out = Path(out)
    try:
        _claim_folder(out, {"format": _FORMAT, "count": count, "seed": seed, **asdict(settings)})
        for index in tqdm(range(count), desc="phantoms", unit="volume"):
            _write_phantom(out, f"phantom_{index:06d}", phantom_seed(seed, index), settings)
        _gather(out, count)
    except OutputFolderError:
        raise
    except OSError as error:
        raise OutputFolderError(f"cannot write to the output folder {out}: {error.strerror}") from error


def phantom_seed(seed: int, index: int) -> int:
    """Return the :func:`generate_phantom` seed of volume ``index`` in the benchmark with seed ``seed``.

    Raises:
        SettingsError: the seed is negative.
    """
    if seed < 0:
        raise SettingsError(f"seed must be at least 0, got {seed}.")
    return seed * _SEED_STRIDE + index


def phantom_truth(phantom: Phantom) -> dict[str, Any]:
    """Return the ground truth of a phantom without its voxels, JSON-serializable."""
    return {
        "seed": phantom.seed,
        "plane": phantom.plane,
        "phase": phantom.phase,
        "shape": list(phantom.volume.shape),
        "spacing_mm": list(phantom.spacing),
        "affine": phantom.affine.tolist(),
        "noise_hu": phantom.noise_hu,
        "organ_labels": ORGANS,
        "organ_hu": phantom.organ_hu,
        "lesions": [{**asdict(lesion), "density": lesion.density} for lesion in phantom.lesions],
    }


def findings_truth(phantom: FindingsPhantom) -> dict[str, Any]:
    """Return the ground truth of a phantom with findings without its voxels, JSON-serializable."""
    return {
        "seed": phantom.seed,
        "shape": list(phantom.volume.shape),
        "spacing_mm": list(phantom.spacing),
        "affine": phantom.affine.tolist(),
        "noise_hu": phantom.noise_hu,
        "kernel_mm": phantom.kernel_mm,
        "organ_labels": HEAD_LABELS,
        "lesions": [asdict(finding) for finding in phantom.findings],
    }


def _claim_folder(out: Path, settings: dict[str, Any]) -> None:
    """Create the folder, or check that it belongs to an earlier run with the same settings."""
    text = json.dumps(settings, indent=2) + "\n"
    file = out / _SETTINGS_FILE
    if out.exists() and not out.is_dir():
        raise OutputFolderError(f"{out} is a file; expected a folder.")
    # listed before checking for the settings file, which a run writes first: another run may be starting here
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if file.is_file():
        if file.read_text(encoding="utf-8") != text:
            raise OutputFolderError(
                f"{out} contains phantoms with other settings (see {file.name}); use another folder."
            )
    # a run that was killed at its start leaves a partial settings file
    elif not all(name.startswith(f"{_SETTINGS_FILE}.") for name in names):
        raise OutputFolderError(f"{out} is not empty and does not contain phantoms; use another folder.")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(file, text.encode())
    for folder in (*_FOLDERS, "truth"):
        (out / folder).mkdir(exist_ok=True)


def _write_phantom(out: Path, name: str, seed: int, settings: PhantomSettings | FindingsSettings) -> None:
    """Write the files of one phantom; the truth file is written last and marks the phantom as complete."""
    done = out / "truth" / f"{name}.json"
    if done.is_file():
        return
    phantom: Phantom | FindingsPhantom
    if isinstance(settings, FindingsSettings):
        phantom = generate_findings(seed, settings)
    else:
        phantom = generate_phantom(seed, settings)
    paths = {folder: f"{folder}/{name}.nii.gz" for folder in _FOLDERS}
    for folder, voxels in zip(_FOLDERS, (phantom.volume, phantom.organs, phantom.lesion_mask), strict=True):
        atomic_write(out / paths[folder], _nifti_bytes(voxels, phantom.affine))
    files = {"image": paths["volumes"], "organs": paths["organs"], "lesion_mask": paths["lesions"]}
    if isinstance(phantom, FindingsPhantom):
        truth, report = findings_truth(phantom), findings_report(phantom)
        questions = findings_questions(phantom, files["image"])
    else:
        truth, report = phantom_truth(phantom), phantom_report(phantom)
        questions = phantom_questions(phantom, files["image"])
    record = {
        "truth": {"id": name, **files, **truth},
        "report": {"id": name, "image": files["image"], **report},
        "questions": questions,
    }
    atomic_write(done, json.dumps(record).encode())


def _nifti_bytes(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    """Return a compressed NIfTI-1 file in mm; the same voxels give the same bytes."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _gather(out: Path, count: int) -> None:
    """Write the tables from the records of all phantoms."""
    table, reports, truths = io.StringIO(newline=""), [], []
    writer = csv.DictWriter(table, M3D_VQA_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for index in range(count):
        record = json.loads((out / "truth" / f"phantom_{index:06d}.json").read_bytes())
        writer.writerows(record["questions"])
        reports.append(json.dumps(record["report"]) + "\n")
        truths.append(json.dumps(record["truth"]) + "\n")
    atomic_write(out / _REPORTS_FILE, "".join(reports).encode())
    atomic_write(out / _TRUTH_FILE, "".join(truths).encode())
    atomic_write(out / _QUESTIONS_FILE, table.getvalue().encode())
