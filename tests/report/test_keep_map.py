# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Asymmetric landmarks go through every transform and come back where the file has them; a token is a pixel.

The oracle is the file itself, by numpy, nibabel and pydicom. Kept tokens are those whose pixel is brighter than the
body, and the importance of a token is its pixel.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from monai_medpruner.cli.main import main
from monai_medpruner.data import VolumeReader
from monai_medpruner.networks.study_record import study_record
from monai_medpruner.report import keep_map, write_keep_maps
from monai_medpruner.report.dicom_seg import _frames
from monai_medpruner.report.keep_map import token_of_pixels
from monai_medpruner.results import SliceRecord, StudyRecord, append_line, result_line
from monai_medpruner.transforms import (
    CropBodyd,
    DownsampleSlicesd,
    FindBodyd,
    IntensityWindowsd,
    InterSliceAnchorFilterd,
    LoadVolume,
    LoadVolumed,
    SlicePlaned,
    SliceRanged,
)

BODY, DENSE = 40, 1000
SHAPE = (40, 48, 20)  # right to left, anterior to posterior, inferior to superior


def anatomy():
    """A body in air with landmarks on one side of each axis, on even rows and columns."""
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[6:30, 10:38, 2:18] = BODY
    voxels[8:12, 12:20, 4:10] = voxels[22:26, 30:34, 10:16] = voxels[10:16, 24:28, 6:8] = DENSE
    return voxels


def write_nifti(path, axes=(0, 1, 2), signs=(1, 1, 1), tilt=0.0, shear=0.0):
    """The anatomy as a file whose axes run along ``axes`` in direction ``signs``; its voxels and affine."""
    stored, affine = anatomy().transpose(axes), np.zeros((4, 4))
    for axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        stored = np.flip(stored, axis) if sign < 0 else stored
        affine[world, axis] = (3.0, 3.0, 4.0)[world] * sign * (-1 if world < 2 else 1)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ affine
    affine[1, axes.index(2)] += shear
    affine[:, 3] = 11, -7, 30, 1
    nib.save(nib.Nifti1Image(np.ascontiguousarray(stored), affine), path)
    return np.ascontiguousarray(stored), affine


def record_of(path, plane="acquired", threshold=None, slices="all", crop=None, pixel_share=None, **view):
    """Record of a study whose tokens are the pixels that the encoder would get."""
    chain = Compose(
        [
            LoadVolumed("image"),
            SlicePlaned("image", plane, **view),
            FindBodyd("image", crop),
            IntensityWindowsd("image", windows=[[-1000, 1000]], modality="ct"),
            SliceRanged("image", slices),
            InterSliceAnchorFilterd("image", threshold),
            CropBodyd("image", crop, margin_mm=0),
            DownsampleSlicesd("image", pixel_share),
        ]
    )
    volume = chain({"image": str(path)})["image"]
    records = []
    for one in volume.as_tensor()[0].unbind(-1):
        primary = (one > 0.75).flatten()
        contextual = torch.zeros_like(primary)
        contextual[~primary] = torch.arange(int((~primary).sum())) == 0  # the first other token
        merged_into = torch.where(primary, torch.arange(primary.numel()), int(contextual.nonzero()[0]))
        records.append(SliceRecord(tuple(one.shape), primary, contextual, merged_into, one.flatten().contiguous()))
    return study_record(volume, "ab", records, {}, {})


def saved(record, folder):
    """The record as a reader of the run's folder gets it."""
    return StudyRecord.load(record.save(folder / "ab.safetensors"))


ORIENTATIONS = [((0, 1, 2), (1, 1, 1)), ((1, 0, 2), (-1, 1, -1)), ((2, 0, 1), (1, -1, 1)), ((1, 2, 0), (-1, -1, -1))]


@pytest.mark.parametrize("orientation", ["radiological", "as_stored"])
@pytest.mark.parametrize("tilt", [0.0, 0.35], ids=["straight", "oblique"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_any_orientation_and_plane(tmp_path, axes, signs, plane, tilt, orientation):
    voxels, affine = write_nifti(tmp_path / "ct.nii.gz", axes, signs, tilt)
    found = keep_map(saved(record_of(tmp_path / "ct.nii.gz", plane, orientation=orientation), tmp_path))
    assert found.labels.shape == found.importance.shape == voxels.shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(found.labels == 2, voxels == DENSE)
    np.testing.assert_allclose(found.importance, (voxels + 1000) / 2000, atol=1e-6)
    depth = axes.index(("sagittal", "coronal", "axial").index(plane))
    assert (found.labels == 3).sum() == voxels.shape[depth]
    assert found.labels.min() == 1


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("pixel_share", [None, 0.25])
@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_cropped_and_downsampled(tmp_path, axes, signs, plane, pixel_share):
    """The crop's box, in whole: every slice along one axis, the body's extent along the other two."""
    voxels, _ = write_nifti(tmp_path / "ct.nii.gz", axes, signs)
    record = record_of(tmp_path / "ct.nii.gz", plane, crop="body", pixel_share=pixel_share)
    found = keep_map(saved(record, tmp_path))
    depth = axes.index(("sagittal", "coronal", "axial").index(plane))
    box = np.argwhere(voxels == BODY)
    inside = np.zeros(voxels.shape, bool)
    extent = (slice(box[:, a].min(), box[:, a].max() + 1) for a in range(3))
    inside[tuple(slice(None) if a == depth else one for a, one in enumerate(extent))] = True
    np.testing.assert_array_equal(found.labels > 0, inside)
    assert not found.importance[~inside].any()
    in_box = (voxels == DENSE) & inside
    if pixel_share is None:
        np.testing.assert_array_equal(found.labels == 2, in_box)
        return
    # a token is a square of 2 by 2 pixels here; the body's box and the landmarks begin and end with one in axial slices
    ends = [
        [int(f(np.argwhere(one)[:, a])) for f in (np.min, np.max)]
        for one in (found.labels == 2, in_box)
        for a in range(3)
    ]
    np.testing.assert_allclose(ends[:3], ends[3:], atol=0 if plane == "axial" else 1)


def test_slices_that_were_dropped_are_zero(tmp_path):
    voxels, _ = write_nifti(tmp_path / "ct.nii.gz", (1, 0, 2), (-1, 1, -1))
    record = record_of(tmp_path / "ct.nii.gz", "axial", 0.0005, "2:16")
    found = keep_map(saved(record, tmp_path))
    kept = np.zeros(20, bool)
    kept[[19 - index for index in record.slice_indices]] = True  # the file runs downward
    assert 1 < kept.sum() < 14
    np.testing.assert_array_equal((found.labels > 0).any((0, 1)), kept)
    np.testing.assert_array_equal(found.labels == 2, (voxels == DENSE) & kept)


def test_a_sheared_file(tmp_path):
    """Slices that are displaced against each other: the sform says so, and no qform says otherwise."""
    voxels, affine = write_nifti(tmp_path / "ct.nii.gz", shear=1.5)
    results(tmp_path, record_of(tmp_path / "ct.nii.gz"))
    (labels, _), _ = write_keep_maps(tmp_path)
    image = nib.load(labels)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(image.dataobj) == 2, voxels == DENSE)
    assert image.header["qform_code"] == 0


def test_pixels_of_a_coarse_grid():
    """Against a count of the token at each pixel's center in fractions."""
    token = token_of_pixels((3, 2), (7, 5))
    for row in range(7):
        for column in range(5):
            expected = int(Fraction(2 * row + 1, 14) * 3) * 2 + int(Fraction(2 * column + 1, 10) * 2)
            assert token[row, column] == expected


def results(folder, record):
    """A run's folder with one study."""
    (folder / "records").mkdir()
    record.save(folder / "records" / f"{record.name}.safetensors")
    with (folder / "answers.jsonl").open("a", encoding="utf-8") as file:
        append_line(file, result_line({"id": "1", "image": record.image, "question": "a?"}, {}, record=record))


def write_series(folder, positions, shift=0.0, missing=()):
    """The anatomy as a DICOM series, slices at ``positions`` mm along the normal of an oblique plane.

    Returns:
        The center of each landmark voxel in LPS mm, in any order, from the fields that were written.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    voxels, landmarks = anatomy(), []
    row = np.array([np.cos(0.2), np.sin(0.2), 0.0])
    column = np.array([-np.sin(0.2) * np.cos(0.1), np.cos(0.2) * np.cos(0.1), np.sin(0.1)])
    normal = np.cross(row, column)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index in np.random.default_rng(0).permutation(len(positions)):
        pixels = voxels[:, :, index].T  # rows run to posterior, columns to the left
        place = normal * positions[index] + column * shift * positions[index] + [5.0, -20.0, 3.0]
        place = np.round(place, 6)
        for at in np.argwhere(pixels == DENSE):
            landmarks.append(place + row * 0.8 * at[1] + column * 0.9 * at[0])
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.PatientName, dataset.PatientID, dataset.Modality = "Doe^Jane", "ID4711", "CT"
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.ImagePositionPatient = [f"{one:.6f}" for one in place]
        dataset.ImageOrientationPatient = [f"{one:.10f}" for one in (*row, *column)]
        dataset.PixelSpacing, dataset.SliceThickness = [0.9, 0.8], 2
        dataset.PixelData = (pixels + 1024).astype(np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        for name in missing:
            delattr(dataset, name)
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return np.array(landmarks)


def same_points(found, expected, tolerance):
    """Whether two sets of points are the same, each point found once."""
    order = [np.lexsort(np.round(one, 2).T) for one in (found, expected)]
    np.testing.assert_allclose(np.asarray(found)[order[0]], np.asarray(expected)[order[1]], atol=tolerance)


EVEN, UNEVEN = np.arange(20) * 2.5, np.cumsum([1.0, 2.5, 4.0, 2.0, 6.5] * 4)


@pytest.mark.parametrize(("shift", "plane"), [(0.0, "acquired"), (0.0, "coronal"), (0.3, "acquired")])
def test_nifti_of_a_series(tmp_path, shift, plane):
    (tmp_path / "series").mkdir()
    expected = write_series(tmp_path / "series", EVEN, shift)
    results(tmp_path, record_of(tmp_path / "series", plane))
    image = nib.load(next(write_keep_maps(tmp_path))[0])
    at = np.argwhere(np.asarray(image.dataobj) == 2)
    found = nib.affines.apply_affine(image.affine, at) * [-1, -1, 1]
    same_points(found, expected, 1e-3)


@pytest.mark.parametrize("threshold", [None, 0.001])
@pytest.mark.parametrize("positions", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["straight", "gantry tilt"])
def test_segmentation_of_a_series(tmp_path, capsys, recwarn, positions, shift, threshold):
    """Each pixel of a frame lies where the source slice has it, also where no affine says so."""
    pytest.importorskip("highdicom", reason="a DICOM segmentation needs highdicom (extra seg)")
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    (tmp_path / "series").mkdir()
    expected = write_series(tmp_path / "series", positions, shift, missing=("PatientName",))
    record = record_of(tmp_path / "series", threshold=threshold)
    results(tmp_path, record)
    main(["keep-map", str(tmp_path)])
    written = capsys.readouterr()
    names = [f"{record.name}{end}" for end in (".nii.gz", "_importance.nii.gz", ".seg.dcm")]
    assert written.out.split() == [str(tmp_path / "keep_maps" / name) for name in names]
    assert "Doe" not in written.err
    dataset = dcmread(tmp_path / "keep_maps" / names[-1])
    assert dataset.PatientID == "ID4711"
    sources = [dcmread(path) for path in (tmp_path / "series").iterdir()]
    assert dataset.StudyInstanceUID == sources[0].StudyInstanceUID
    assert dataset.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found, frames = [], pixel_array(dataset).reshape(-1, 48, 40)
    for group, frame in zip(dataset.PerFrameFunctionalGroupsSequence, frames, strict=True):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            found += [place + row * across * at[1] + column * down * at[0] for at in np.argwhere(frame)]
    if threshold is None:
        same_points(found, expected, 1e-3)
        return
    # of the slices that were kept alone; their positions along the normal tell them apart
    normal = np.cross(row, column)
    kept = positions[list(record.slice_indices)]
    along = (expected - [5.0, -20.0, 3.0]) @ normal
    same_points(found, expected[np.abs(along[:, None] - kept).min(1) < 0.1], 1e-3)
    assert 0 < len(found) < len(expected)


def test_a_series_that_cannot_be_referred_to(tmp_path, capsys):
    pytest.importorskip("highdicom", reason="a DICOM segmentation needs highdicom (extra seg)")
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "series", EVEN, missing=("FrameOfReferenceUID",))
    results(tmp_path, record_of(tmp_path / "series"))
    main(["keep-map", str(tmp_path)])
    assert "states no FrameOfReferenceUID, which it must refer to" in capsys.readouterr().err
    assert len(list((tmp_path / "keep_maps").iterdir())) == 2


def test_without_highdicom(tmp_path, capsys, monkeypatch):
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "series", EVEN)
    results(tmp_path, record_of(tmp_path / "series"))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    main(["keep-map", str(tmp_path)])
    assert 'pip install "monai-medpruner[seg]"' in capsys.readouterr().err
    assert not list((tmp_path / "keep_maps").glob("*.dcm"))


def test_frames_of_a_multi_frame_object(tmp_path):
    """Slices go to the frames that they come from, in whatever order these are stored."""
    pytest.importorskip("highdicom", reason="a DICOM segmentation needs highdicom (extra seg)")
    labels = np.random.default_rng(0).integers(0, 4, (5, 4, 3)).astype(np.uint8)
    file = Path("a.dcm")
    frames = _frames(labels, [(file, 3), (file, 0), (file, 2)], {file: SimpleNamespace(NumberOfFrames=4)})
    assert frames.shape == (4, 4, 5)
    for index, frame in enumerate((3, 0, 2)):
        np.testing.assert_array_equal(frames[frame].T, labels[:, :, index])
    assert not frames[1].any()


def test_real_studies(shared_data, tmp_path):
    """A tilted head series with uneven gaps: bone is painted where the file has it."""
    path = shared_data("ct_head_tilted_dicom")
    source = LoadVolume()(path)
    found = keep_map(record_of(path, crop="body", slices="4:14"))
    np.testing.assert_allclose(found.affine, source.affine.numpy())
    read = found.labels > 0
    expected = (source.as_tensor()[0].numpy().clip(-1000, 1000) + 1000) / 2000
    np.testing.assert_allclose(found.importance[read], expected[read], atol=1e-6)
    assert (found.labels == 2).sum() == (read & (expected > 0.75)).sum() > 0
    assert read.any((0, 1)).sum() == 10


def test_a_study_without_scores_or_geometry(tmp_path, capsys):
    np.save(tmp_path / "ct.npy", np.random.default_rng(0).random((1, 6, 8, 10), dtype=np.float32))
    record = record_of_array(tmp_path / "ct.npy")
    results(tmp_path, record)
    main(["keep-map", str(tmp_path)])
    written = capsys.readouterr()
    assert len(written.out.split()) == 1
    assert "no geometry" in written.err
    assert "computed no scores" in written.err
    assert nib.load(written.out.strip()).shape == VolumeReader().read(tmp_path / "ct.npy").voxels.shape


def record_of_array(path):
    volume = Compose([LoadVolumed("image"), SlicePlaned("image")])({"image": str(path)})["image"]
    return study_record(volume, "ab", [SliceRecord.unpruned((2, 3)) for _ in range(6)], {}, {})
