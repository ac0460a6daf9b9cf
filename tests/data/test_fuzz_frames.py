# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Mutated multi-frame objects are read with pydicom's values at pydicom's positions, or refused."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from multi_frame_files import AXIAL, content, measures, orientation, position, rescale, write_frames

from monai_medpruner.data import VolumeReader
from monai_medpruner.data.dicom_decoding import DicomDecoding
from monai_medpruner.errors import MedPrunerError

pydicom = pytest.importorskip("pydicom", minversion="3")
FRAMES = 4


def write_mutant(path: Path, seed: int) -> None:
    """Write an object in which a valid field has a rare value, or some bytes of its header are other ones."""
    rng = random.Random(seed)
    own = rng.random() < 0.5
    scales = [(rng.choice([1.0, 0.5, 2.0, -1.0]), rng.choice([0.0, -1024.0])) for _ in range(FRAMES)]
    places = rng.sample(range(FRAMES), FRAMES)
    frames = [
        [position((0, 0, 2.0 * place)), content(StackID="1"), *([rescale(*scales[place], "US")] if own else [])]
        for place in places
    ]
    shared = [orientation(AXIAL), measures(), *([] if own else [rescale()])]
    syntax = rng.choice(["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "ExplicitVRBigEndian"])
    modality = rng.choice(["MR", "PT"]) if own else "CT"
    write_frames(path, frames, shared, syntax=syntax, modality=modality, seed=seed)
    if rng.random() < 0.2:
        return
    data = bytearray(path.read_bytes())
    marker = b"\x7f\xe0\x00\x10" if syntax == "ExplicitVRBigEndian" else b"\xe0\x7f\x10\x00"
    end = data.index(marker)
    groups = data.index(b"\x00\x52" if syntax != "ExplicitVRBigEndian" else b"\x52\x00")
    start = rng.choice([132, groups])
    for _ in range(rng.choice([1, 1, 2, 4])):
        data[rng.randrange(start, end + 12)] = rng.choice([0, 1, 48, 57, 92, 255, rng.randrange(256)])
    path.write_bytes(bytes(data))


def expected(path: Path) -> dict[float, np.ndarray] | None:
    """Values of each frame by its place along z, as pydicom finds them; None where it finds none."""
    try:
        dataset = pydicom.dcmread(path)
        pixels = np.atleast_3d(dataset.pixel_array)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        found = {}
        for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            place = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
            macros = [one.PixelValueTransformationSequence for one in (group, shared) if _transforms(one)]
            slope, intercept = (
                (float(macros[0][0].RescaleSlope), float(macros[0][0].RescaleIntercept)) if macros else (1.0, 0.0)
            )
            found[place] = frame * slope + intercept
    except Exception:  # a mutant may meet any fault of pydicom
        return None
    return found


def _transforms(group) -> bool:
    return bool(group.get("PixelValueTransformationSequence"))


def outcome(path: Path, reader: VolumeReader) -> str:
    """Return what became of a mutant; a text that begins with FINDING if it is wrong."""
    try:
        volume = reader.read(path)
    except MedPrunerError:
        return "refused"
    except Exception as error:  # the finding
        return f"FINDING: {type(error).__name__}: {error}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = expected(path)
    if values is None or "slice_axis" not in volume.meta:
        return "read, unknown to pydicom"
    if len(values) != volume.voxels.shape[2]:
        return f"FINDING: {volume.voxels.shape[2]} of {len(values)} frames"
    for index, place in enumerate(volume.meta["slice_positions_mm"]):
        nearest = min(values, key=lambda one: abs(one - place))
        if not np.array_equal(volume.voxels[..., index].T, values[nearest].astype(np.float32)):
            return "FINDING: values differ from pydicom's"
    return "read"


def test_mutants_are_read_rightly_or_refused(tmp_path):
    reader = VolumeReader(decoding=DicomDecoding(file_seconds=10, series_seconds=20, memory_gib=1))
    found = {}
    for seed in range(60):
        write_mutant(tmp_path / "a.dcm", seed)
        found[seed] = outcome(tmp_path / "a.dcm", reader)
    assert {seed: text for seed, text in found.items() if text.startswith("FINDING")} == {}
    assert {"read", "refused"} <= set(found.values())


def test_values_of_another_frame_are_a_finding(tmp_path):
    write_frames(
        tmp_path / "a.dcm",
        [[position((0, 0, 2.0 * place))] for place in range(FRAMES)],
        [orientation(AXIAL), measures(), rescale()],
    )
    volume = VolumeReader().read(tmp_path / "a.dcm")
    volume.voxels[..., [0, 1]] = volume.voxels[..., [1, 0]]

    class Swapped:
        def read(self, path):
            return volume

    assert outcome(tmp_path / "a.dcm", Swapped()).startswith("FINDING")
