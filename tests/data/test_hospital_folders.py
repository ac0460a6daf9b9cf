# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Folders as hospitals export them: objects that are no images, several volumes in a series, CDs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from dicom_files import write_slice

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import (
    DuplicateSlicesError,
    EmptyFolderError,
    MedPrunerError,
    MixedSeriesError,
    SettingsError,
    UnreadableVolumeError,
)
from monai_medpruner.transforms import IntensityWindows, LoadVolume

# storage SOP classes of objects without pixels
STORAGE = "1.2.840.10008.5.1.4.1.1."
OBJECTS = {
    "1.2.840.10008.1.3.10": "media directory",
    f"{STORAGE}481.3": "radiotherapy structure set",
    f"{STORAGE}88.67": "dose report",
    f"{STORAGE}88.22": "structured report",
    f"{STORAGE}88.59": "key object selection",
    f"{STORAGE}11.1": "presentation state",
    f"{STORAGE}104.1": "embedded document",
    f"{STORAGE}66.1": "registration",
}


def read(path, **options):
    reader = VolumeReader(**options)
    return reader.get_data(reader.read(path))


def stack(folder, edit=None, count=4, first=0.0, gap=1.0, name="a"):
    """Write slices of one series."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        write_slice(folder / f"{name}{index:03}.dcm", edit, z=first + gap * index)
    return folder


def write_object(path, sop_class):
    """Write a DICOM object without pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.PatientName = "1.2.826.78", "DOE^JANE"
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.save_as(path, write_like_original=False)


@pytest.mark.parametrize("sop_class", list(OBJECTS))
@pytest.mark.parametrize("name", ["DIRFILE", "other.dcm"])
def test_object_that_is_no_image_is_passed_over(tmp_path, sop_class, name):
    expected, _ = read(stack(tmp_path))
    write_object(tmp_path / name, sop_class)
    voxels, meta = read(tmp_path)
    assert np.array_equal(voxels, expected)
    assert f"DICOM objects that are no images were passed over: {OBJECTS[sop_class]} (1)" in meta["notes"]
    assert "DOE" not in repr(meta)


def test_objects_alone_are_named(tmp_path):
    write_object(tmp_path / "a.dcm", f"{STORAGE}88.67")
    with pytest.raises(EmptyFolderError, match=r"no DICOM image.*dose report \(1\)"):
        read(tmp_path)


def test_truncated_slice_is_still_refused(tmp_path):
    stack(tmp_path)
    path = tmp_path / "a002.dcm"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableVolumeError, match=r"a002\.dcm"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["dirfile", "rtstruct", "sr", "pr"])
def test_shared_case_of_objects(shared_case, kind):
    voxels, meta = read(shared_case("15_non_image_dicom_beside_the_slices.py") / kind)
    assert voxels.shape[2] == 10
    assert any("passed over" in note for note in meta["notes"])


def test_hidden_files_of_macos(shared_case):
    voxels, meta = read(shared_case("17_macos_resource_files.py"))
    assert voxels.shape[2] == 10
    assert "files that are not DICOM images were ignored: 11" in meta["notes"]


def test_localizer_in_the_series(tmp_path):
    def localizer(dataset):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    stack(tmp_path)
    write_slice(tmp_path / "scout.dcm", localizer)
    voxels, meta = read(tmp_path)
    assert voxels.shape[2] == 4
    assert "localizers of the series were passed over: 1" in meta["notes"]


def test_top_folder_of_a_cd(tmp_path):
    """The media directory and the viewer lie on top, the images below."""
    stack(tmp_path / "DICOM" / "S1" / "A")
    write_object(tmp_path / "DICOMDIR", "1.2.840.10008.1.3.10")
    (tmp_path / "VIEWER.EXE").write_bytes(b"MZ" + bytes(300))
    (tmp_path / "DICOM" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(300))
    voxels, meta = read(tmp_path)
    assert voxels.shape[2] == 4
    assert any("media directory (1)" in note for note in meta["notes"])


def test_series_of_a_cd_are_listed_and_chosen(tmp_path):
    def other(dataset):
        dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.79", "MR"

    stack(tmp_path / "A" / "1")
    stack(tmp_path / "A" / "2", other, count=3)
    with pytest.raises(MixedSeriesError, match=r"1\.2\.826\.77: 4 files, CT, 8 x 6 pixels; 1\.2\.826\.79: 3 files, MR"):
        read(tmp_path)
    assert read(tmp_path, series_uid="1.2.826.79")[0].shape[2] == 3


@pytest.mark.parametrize(("option", "gap"), [(None, 5.0), ("near", 5.0), ("overlap", 5.0)])
def test_two_acquisitions_in_a_series(shared_case, option, gap):
    folder = shared_case("02_two_passes_one_series.py", *([option] if option else []))
    with pytest.raises(
        MixedSeriesError, match=r"2 volumes.*AcquisitionNumber.*1: 10 slices, 100\.0 to 145\.0 mm; 2: 10"
    ):
        read(folder)
    for part, tissue in ((1, 40), (2, 200)):
        voxels, meta = read(folder, series_part=part)
        assert voxels.shape[2] == 10
        assert np.allclose(np.diff(meta["slice_positions_mm"]), gap)
        assert np.isin(tissue, voxels)
    with pytest.raises(MixedSeriesError, match="no volume 3"):
        read(folder, series_part=3)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("EchoTime", (10.5, 98)),
        ("TriggerTime", (0, 400)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("ConvolutionKernel", ("B30f", "B70f")),
    ],
)
def test_field_that_tells_volumes_apart(tmp_path, field, values):
    for name, value in zip("ab", values, strict=True):
        stack(tmp_path, lambda dataset, value=value: setattr(dataset, field, value), name=name)
    with pytest.raises(MixedSeriesError, match=f"differ in {field}"):
        read(tmp_path)
    assert read(tmp_path, series_part=2)[0].shape[2] == 4


def test_steps_of_one_scan_are_one_volume(tmp_path):
    """Each step has its own acquisition number, and begins where the last one ended."""
    for step in range(3):
        stack(
            tmp_path,
            lambda dataset, step=step: setattr(dataset, "AcquisitionNumber", step + 1),
            first=4.0 * step,
            name=f"{step}",
        )
    voxels, meta = read(tmp_path)
    assert voxels.shape[2] == 12
    assert meta["notes"] == []


def test_number_for_each_slice_is_one_volume(tmp_path):
    folder = tmp_path
    for index in range(5):
        write_slice(
            folder / f"{index}.dcm", lambda dataset, index=index: setattr(dataset, "AcquisitionNumber", index), z=index
        )
    assert read(folder)[0].shape[2] == 5


def test_copies_are_still_duplicates(tmp_path):
    stack(tmp_path)
    shutil.copy(tmp_path / "a001.dcm", tmp_path / "copy.dcm")
    with pytest.raises(DuplicateSlicesError):
        read(tmp_path)


def test_part_of_a_single_volume_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="holds one volume"):
        read(stack(tmp_path), series_part=1)


@pytest.mark.parametrize("part", ["2", 1.0, True])
def test_part_must_be_a_whole_number(part):
    with pytest.raises(SettingsError, match="series_part must be a whole number"):
        VolumeReader(series_part=part)


def test_stated_padding_in_the_volumes_units(tmp_path):
    def padded(dataset):
        dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 2
        dataset.add_new(0x00280120, "US", 0)
        dataset.add_new(0x00280121, "US", 4)

    _, meta = read(stack(tmp_path, padded))
    assert meta["padding"] == [-1024.0, -1016.0]


def test_padding_of_the_shared_case_is_the_headers(shared_case):
    image = LoadVolume()(shared_case("06_mr_pixel_padding.py"))
    assert image.meta["padding"] == [-32768.0, -32768.0]
    assert any("the header's padding" in note for note in IntensityWindows()(image).meta["notes"])


def test_text_of_a_part_is_not_in_the_message(tmp_path):
    for name, value in (("a", "DOE^JANE"), ("b", "DOE^JOHN")):
        stack(tmp_path, lambda dataset, value=value: setattr(dataset, "ContrastBolusAgent", value), name=name)
    with pytest.raises(MedPrunerError) as caught:
        read(tmp_path)
    assert "DOE" not in str(caught.value)
