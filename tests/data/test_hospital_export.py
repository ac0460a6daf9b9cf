# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An untouched hospital export, several series and objects that are no images, is asked from its top folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dicom_files import palette_without_tables, write_slice
from multi_frame_files import AXIAL, measures, orientation, position, rescale, write_frames

from monai_medpruner.cli import main as command_line
from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import MixedSeriesError, UnreadableVolumeError
from monai_medpruner.terminal_text import printable

pydicom = pytest.importorskip("pydicom")
STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, SECOND, SCOUT, SHEET, LOOP = (f"1.2.826.77.{number}" for number in range(1, 6))
SIZE, SLICES = 32, 6


def write_object(path, sop_class, **fields):
    """Write a DICOM object without pixels."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SeriesInstanceUID, dataset.PatientName = "1.2.826.78", "DOE^JANE"
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.save_as(path, write_like_original=False)


def write_ct(folder, uid, number, seed=0):
    """Write a CT of a body in air; return its HU (slices, rows, columns)."""
    folder.mkdir(parents=True)
    hu = np.random.default_rng(seed).normal(-1000, 5, (SLICES, SIZE, SIZE))
    hu[:, 6:26, 4:28] += 1040
    stored = np.rint(hu + 1024).astype(np.int16)
    for index in range(SLICES):

        def edit(dataset, index=index):
            dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, number
            dataset.SeriesDescription, dataset.PatientName = "DOE JANE THORAX", "DOE^JANE"
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            dataset.Rows = dataset.Columns = SIZE
            dataset.PixelRepresentation, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
            dataset.PixelSpacing, dataset.SliceThickness = [10, 10], 5
            dataset.PixelData = stored[index].tobytes()

        write_slice(folder / f"IM{index:04}", edit, z=5.0 * index)
    return stored - 1024.0


def scout(dataset):
    dataset.SeriesInstanceUID, dataset.ImageType = SCOUT, ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def sheet(dataset):
    """A screenshot of the dose sheet, in color and without a place."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = f"{STORAGE}7"
    dataset.SeriesInstanceUID, dataset.Modality, dataset.ConversionType = SHEET, "OT", "WSD"
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(6 * 8 * 3)


def loop(dataset):
    del dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence
    dataset.SeriesInstanceUID, dataset.FrameIncrementPointer, dataset.FrameTime = LOOP, 0x00181063, 40


@pytest.fixture
def export(tmp_path):
    """Write an export; return its top folder and the HU of its CT."""
    top = tmp_path / "export"
    study = top / "DICOM" / "PA0" / "ST0"
    hu = write_ct(study / "SE2", CT, 2)
    for name in ("SE1", "SE3", "SE4", "SE5"):
        (study / name).mkdir()
    write_slice(study / "SE1" / "IM0", scout)
    write_slice(study / "SE3" / "IM0", sheet)
    frames = {"sop_class": "UltrasoundMultiFrameImageStorage", "modality": "US", "edit": loop}
    write_frames(study / "SE4" / "IM0", [[]] * 3, **frames)
    for number, kind in enumerate(("481.3", "88.67", "88.22", "88.59", "11.1", "104.1", "66.4", "481.2")):
        write_object(study / "SE5" / f"OB{number}", f"{STORAGE}{kind}")
    write_object(top / "DICOMDIR", "1.2.840.10008.1.3.10")
    (top / "AUTORUN.INF").write_text("[autorun]\nopen=VIEWER.EXE\n")
    (top / "VIEWER.EXE").write_bytes(b"MZ" + bytes(300))
    (top / "LOGO.PNG").write_bytes(b"\x89PNG" + bytes(300))
    for folder in (top, study / "SE2"):
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(300))
        (folder / "._IM0000").write_bytes(b"\0\x05\x16\x07" + bytes(4096))
    return top, hu


@pytest.mark.parametrize("asked", ["", "DICOMDIR", "DICOM"])
def test_the_one_volume_is_read(export, asked):
    """From the top folder, its directory file, or a folder in between; by the values that pydicom finds."""
    top, hu = export
    volume = VolumeReader().read(top / asked)
    assert np.array_equal(volume.voxels, hu.transpose(2, 1, 0))
    for index, path in enumerate(sorted((top / "DICOM" / "PA0" / "ST0" / "SE2").glob("IM*"))):
        dataset = pydicom.dcmread(path)
        expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(volume.voxels[..., index].T, expected)
    notes = " | ".join(volume.meta["notes"])
    listed = "in color (1), localizer (1), no positions in the patient (1)"
    assert f"series that are no volume were passed over: {listed}" in notes
    for kind in ("structure set", "dose report", "structured report", "key object", "presentation", "embedded"):
        assert kind in notes
    assert ("media directory (1)" in notes) is (asked != "DICOM")
    assert "segmentation (1)" in notes
    assert "radiotherapy dose (1)" in notes
    assert "files that are not DICOM images were ignored" in notes
    assert "DOE" not in repr(volume.meta)


def test_damaged_object_is_not_passed_over(export):
    """An enhanced CT whose functional groups are damaged is no object without positions: the choice is the user's."""
    top, _ = export
    common = [orientation(AXIAL), measures(), rescale()]

    def edit(dataset):
        dataset.SeriesInstanceUID = SECOND
        del dataset.PerFrameFunctionalGroupsSequence[2]

    frames = [[position((0, 0, place))] for place in range(3)]
    write_frames(top / "DICOM" / "IM9", frames, common, edit=edit)
    with pytest.raises(MixedSeriesError, match=rf"{SECOND}: 1 file, 3 frames, CT"):
        VolumeReader().read(top)
    with pytest.raises(UnreadableVolumeError, match="3 frames, but functional groups of 2"):
        VolumeReader(SECOND).read(top)


def test_without_a_directory_file(export):
    """The logo in the top folder is no volume of one slice."""
    top, hu = export
    for name in ("DICOMDIR", "AUTORUN.INF", "VIEWER.EXE", "Thumbs.db", "._IM0000"):
        (top / name).unlink()
    assert np.array_equal(VolumeReader().read(top).voxels, hu.transpose(2, 1, 0))


def test_it_is_asked_in_one_command(export, tmp_path, capsys):
    top, _ = export
    words = ["ask", "--image", str(top), "--question", "Is there a nodule?", "--model", "tiny", "--gamma", "none"]
    command_line.main([*words, "--output_dir", str(tmp_path / "out"), "--max_new_tokens", "4"])
    written = capsys.readouterr()
    (line,) = [json.loads(text) for text in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert written.out.strip() == printable(line["answer"])
    assert line["slices"]["total"] == SLICES
    assert "series that are no volume were passed over" in written.err
    assert "DOE" not in written.err


def test_several_volumes_are_listed_and_chosen(export, tmp_path, capsys):
    top, hu = export
    second = write_ct(top / "DICOM" / "PA0" / "ST0" / "SE6", SECOND, 6, seed=1)
    for asked in (top, top / "DICOMDIR"):
        with pytest.raises(MixedSeriesError, match="contains 5 DICOM series") as caught:
            VolumeReader().read(asked)
        listing = str(caught.value)
        for text in (
            f"{CT}: 6 files, CT, 32 x 32 pixels, series number 2",
            f"{SECOND}: 6 files, CT, 32 x 32 pixels, series number 6",
            f"{SCOUT}: 1 file, CT, 8 x 6 pixels, localizer",
            f"{SHEET}: 1 file, OT, 8 x 6 pixels, in color",
            f"{LOOP}: 1 file, 3 frames, US, 8 x 6 pixels, no positions in the patient",
            "--series_uid",
        ):
            assert text in listing
        assert "DOE" not in listing
    assert np.array_equal(VolumeReader(CT).read(top).voxels, hu.transpose(2, 1, 0))
    words = ["ask", "--image", str(top), "--question", "a?", "--model", "tiny", "--gamma", "none"]
    command_line.main([*words, "--series_uid", SECOND, "--output_dir", str(tmp_path / "out"), "--max_new_tokens", "2"])
    assert capsys.readouterr().out
    assert np.array_equal(VolumeReader(SECOND).read(top).voxels, second.transpose(2, 1, 0))


def aborting(uid):
    def edit(dataset):
        palette_without_tables(dataset)
        dataset.SeriesInstanceUID = uid
        if uid is None:
            del dataset.SeriesInstanceUID

    return edit


def test_damaged_file_of_another_series_does_not_stop_a_chosen_one(export):
    """Files that end the decoder, cannot be parsed, or have wrong numbers in their headers."""
    top, hu = export
    folder = top / "DICOM" / "PA0" / "ST0" / "SE7"
    folder.mkdir()
    write_slice(folder / "IM0", aborting("1.2.826.99"))
    write_slice(folder / "IM1", lambda dataset: setattr(dataset, "SeriesInstanceUID", "1.2.826.99"))
    cut = (folder / "IM1").read_bytes()
    (folder / "IM1").write_bytes(cut[: cut.index(b"1.2.826.99") + 60])
    assert np.array_equal(VolumeReader(CT).read(top).voxels, hu.transpose(2, 1, 0))
    with pytest.raises(UnreadableVolumeError, match=r"^IM0: the DICOM decoder ended with SIGABRT"):
        VolumeReader().read(top)


@pytest.mark.parametrize("edit", [aborting(CT), aborting(None)], ids=["chosen", "unknown"])
def test_damaged_file_that_may_belong_to_the_chosen_series_is_an_error(export, edit):
    top, _ = export
    write_slice(top / "DICOM" / "IM7", edit)
    with pytest.raises(UnreadableVolumeError, match=r"^IM7: the DICOM decoder ended with SIGABRT"):
        VolumeReader(CT).read(top)


def test_file_cut_before_its_series_is_an_error(export):
    top, _ = export
    path = top / "DICOM" / "PA0" / "ST0" / "SE2" / "IM0003"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableVolumeError, match=r"^IM0003"):
        VolumeReader(CT).read(top)
