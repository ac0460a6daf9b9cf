# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A DICOM series becomes a volume with every file at its position, or a typed error."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from monai.data import ITKReader

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import (
    DuplicateSlicesError,
    EmptyFolderError,
    IncompleteSeriesError,
    MedPrunerError,
    MixedSeriesError,
    SliceGeometryError,
    UnreadableVolumeError,
    VolumeShapeError,
)

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "feet up": (1, 0, 0, 0, -1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, -0.36, 0.48, 0.8),
}
SPACING = (0.7, 0.5)
PRIVATE = ("DOE", "JANE", "4711", "19700101", "1.2.826")


def read(path, series_uid=None):
    reader = VolumeReader(series_uid)
    return reader.get_data(reader.read(path))


def straight(count=8, gap=2.0):
    return np.array([[-10.0, -20.0, 30.0 + gap * i] for i in range(count)])


def notes_of(meta):
    return " | ".join(meta["notes"])


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_value_and_position_of_every_voxel(tmp_path, write_series, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([-10.0, -20.0, 30.0]) + 2.5 * np.arange(8)[:, None] * normal
    series = write_series(tmp_path / "s", orientation=orientation, positions=positions)
    voxels, meta = read(tmp_path / "s")
    assert voxels.shape == (16, 12, 8)
    assert voxels.dtype == np.float32
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for x, y, z in np.ndindex(voxels.shape):
        assert voxels[x, y, z] == float(series.stored[z, y, x]) - 1024
        lps = positions[z] + x * SPACING[1] * row + y * SPACING[0] * column
        np.testing.assert_allclose(meta["affine"] @ [x, y, z, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-5)
    np.testing.assert_allclose(meta["slice_positions_mm"], [p @ normal for p in positions], atol=1e-5)
    assert (meta["modality"], meta["slice_axis"], meta["nonuniform"], meta["notes"]) == ("CT", 2, False, [])
    assert "gantry_tilt_degrees" not in meta
    assert meta["space"] == "RAS"
    assert meta["spatial_shape"].tolist() == [16, 12, 8]


def test_real_series_equals_itk_reader(shared_data):
    folder = shared_data("ct_torso_dicom")
    expected, expected_meta = ITKReader().get_data(ITKReader().read(str(folder)))
    voxels, meta = read(folder)
    assert np.array_equal(voxels, expected)
    np.testing.assert_allclose(meta["affine"], expected_meta["affine"], atol=1e-9)
    assert meta["notes"] == []


def test_tilted_series_is_read_completely(shared_data):
    pydicom = pytest.importorskip("pydicom")
    folder = shared_data("ct_head_tilted_dicom")
    datasets = [pydicom.dcmread(i) for i in folder.iterdir()]
    normal = np.cross(datasets[0].ImageOrientationPatient[:3], datasets[0].ImageOrientationPatient[3:])
    datasets.sort(key=lambda d: sum(float(a) * b for a, b in zip(d.ImagePositionPatient, normal, strict=True)))
    voxels, meta = read(folder)
    assert voxels.shape == (512, 512, 28)
    for index, dataset in enumerate(datasets):
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(voxels[:, :, index], hu.T)
    positions = [np.dot(np.array(d.ImagePositionPatient, float), normal) for d in datasets]
    np.testing.assert_allclose(meta["slice_positions_mm"], positions, atol=1e-6)
    assert meta["nonuniform"] is True
    assert meta["gantry_tilt_degrees"] == pytest.approx(18.5, abs=0.01)
    notes = notes_of(meta)
    assert "18.5 degrees" in notes
    assert "1.08 to 7.00 mm" in notes
    assert "4, 7 mm" in notes
    for index in (0, 27):  # the affine places the ends exactly
        x, y, z = (float(i) for i in datasets[index].ImagePositionPatient)
        np.testing.assert_allclose(meta["affine"] @ [0, 0, index, 1], [-x, -y, z, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("removed", "slices", "missing"), [([3], (2, 3), 1), ([4, 5], (3, 4), 2), ([0, 7], None, 0)], ids=str
)
def test_missing_slices_are_noted(tmp_path, write_series, removed, slices, missing):
    series = write_series(tmp_path / "s")
    for index in removed:
        series.files[index].unlink()
    voxels, meta = read(tmp_path / "s")
    left = [i for i in range(8) if i not in removed]
    assert np.array_equal(voxels, np.moveaxis(series.stored[left], 0, -1).transpose(1, 0, 2) - np.float32(1024))
    np.testing.assert_allclose(meta["slice_positions_mm"], [30.0 + 2 * i for i in left])
    assert meta["nonuniform"] is (slices is not None)
    if slices is None:  # at the ends nothing shows that a slice is missing
        assert meta["notes"] == []
    else:
        expected = f"gap of {2.0 * (missing + 1):.2f} mm between slices {slices[0]} and {slices[1]} (counted from 0)"
        assert f"{expected} where 2.00 mm is usual: {missing} slice" in notes_of(meta)


def test_gantry_tilt_with_even_gaps_is_a_shear_in_the_affine(tmp_path, write_series):
    positions = straight() + np.arange(8)[:, None] * [0, 2 * np.tan(np.radians(15)), 0]
    write_series(tmp_path / "s", positions=positions)
    _, meta = read(tmp_path / "s")
    assert meta["gantry_tilt_degrees"] == pytest.approx(15, abs=1e-3)
    assert meta["nonuniform"] is False
    for index, (x, y, z) in enumerate(positions):
        np.testing.assert_allclose(meta["affine"] @ [0, 0, index, 1], [-x, -y, z, 1], atol=1e-5)
    assert meta["notes"] == ["gantry tilt: slices are stacked at 15.0 degrees to their normal"]


def test_stated_tilt_that_contradicts_the_positions_is_noted(tmp_path, write_series):
    write_series(tmp_path / "s", lambda d, i: setattr(d, "GantryDetectorTilt", -12))
    _, meta = read(tmp_path / "s")
    assert "gantry_tilt_degrees" not in meta
    assert meta["notes"] == [
        "the header states a gantry tilt of 12 degrees, the slice positions 0.0: the positions are followed"
    ]


@pytest.mark.parametrize("copies", [1, 8])
def test_duplicate_positions_are_rejected(tmp_path, write_series, copies):
    series = write_series(tmp_path / "s")
    for file in series.files[:copies]:
        shutil.copy(file, file.with_suffix(".copy"))
    with pytest.raises(DuplicateSlicesError, match=rf"^{copies} of {8 + copies} slices"):
        read(tmp_path / "s")


def test_mixed_series_are_listed_and_one_can_be_chosen(tmp_path, write_series):
    first = write_series(tmp_path / "s", series_uid="1.9.11")
    second = write_series(
        tmp_path / "s", lambda d, i: setattr(d, "Modality", "MR"), series_uid="1.9.22", seed=1, positions=straight(5)
    )
    with pytest.raises(MixedSeriesError, match=r"2 DICOM series.*1\.9\.11: 8 files, CT, .*; 1\.9\.22: 5 files, MR"):
        read(tmp_path / "s")
    with pytest.raises(MixedSeriesError, match=r"no DICOM series 1\.9\.33.*1\.9\.11: 8 files"):
        read(tmp_path / "s", "1.9.33")
    for series, uid in ((first, "1.9.11"), (second, "1.9.22")):
        voxels, meta = read(tmp_path / "s", uid)
        assert np.array_equal(voxels, series.stored.transpose(2, 1, 0) - np.float32(1024))
        assert uid not in repr(meta)


def test_single_series_other_than_the_chosen_one_is_rejected(tmp_path, write_series):
    write_series(tmp_path / "s", series_uid="1.9.11")
    with pytest.raises(MixedSeriesError, match=r"1\.9\.12"):
        read(tmp_path / "s", "1.9.12")


def test_other_files_are_ignored_with_a_note(tmp_path, write_series):
    write_series(tmp_path / "s")
    (tmp_path / "s" / "README.txt").write_text("a text " * 200)
    (tmp_path / "s" / ".DS_Store").write_bytes(bytes(20))
    (tmp_path / "s" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (tmp_path / "s" / "sub").mkdir()
    voxels, meta = read(tmp_path / "s")
    assert voxels.shape == (16, 12, 8)
    assert sorted(meta["notes"]) == [
        "DICOM objects that are no images were passed over: media directory (1)",
        "files that are not DICOM images were ignored: 2",
    ]
    (tmp_path / "s" / "DICOMDIR").unlink()
    assert "subfolders are not searched: 1" in read(tmp_path / "s")[1]["notes"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.txt", bytes(128) + b"DICM" + bytes(50)),
        ("9.dcm", b""),
        ("9.IMA", b"cut short"),
        ("9", b""),
        ("1.2.3.9", b""),
    ],
)
def test_unreadable_dicom_file_is_not_ignored(tmp_path, write_series, name, content):
    write_series(tmp_path / "s")
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(UnreadableVolumeError, match=f"^{name} should be a DICOM image"):
        read(tmp_path / "s")


def test_truncated_slice_is_rejected(tmp_path, write_series):
    series = write_series(tmp_path / "s")
    content = series.files[4].read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 2, len(content) - 1]:
        series.files[4].write_bytes(content[:length])
        with pytest.raises(UnreadableVolumeError, match=series.files[4].name):
            read(tmp_path / "s")


def test_folders_without_images(tmp_path):
    with pytest.raises(EmptyFolderError, match="0 files"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(EmptyFolderError, match="1 files"):
        read(tmp_path)


def localizer(dataset, index):
    if index == 3:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def other_size(dataset, index):
    if index == 3:
        dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows


def other_spacing(dataset, index):
    if index == 3:
        dataset.PixelSpacing = [0.7, 0.6]


@pytest.mark.parametrize("edit", [localizer, other_size, other_spacing], ids=lambda i: i.__name__)
def test_slices_of_another_grid_are_rejected(tmp_path, write_series, edit):
    write_series(tmp_path / "s", edit)
    with pytest.raises(SliceGeometryError, match=r"^1 of 8 files of the series differ"):
        read(tmp_path / "s")


@pytest.mark.parametrize(
    ("dtype", "bits"), [("uint8", 8), ("uint16", 12), ("uint16", 16), ("int16", 16)], ids=lambda i: str(i)
)
@pytest.mark.parametrize("rescale", [(1, -1024), (0.5, 3.25), (2, 0)])
def test_monochrome1_gives_the_same_values_as_monochrome2(tmp_path, write_series, dtype, bits, rescale):
    low = -(2**15) if dtype == "int16" else 0
    stored = np.random.default_rng(1).integers(low, low + 2**bits, (8, 12, 16)).astype(dtype)
    for name in ("MONOCHROME1", "MONOCHROME2"):

        def edit(dataset, index, name=name):
            dataset.PhotometricInterpretation = name
            dataset.BitsStored, dataset.HighBit = bits, bits - 1
            dataset.RescaleSlope, dataset.RescaleIntercept = rescale

        write_series(tmp_path / name, edit, stored=stored)
    inverted, meta = read(tmp_path / "MONOCHROME1")
    plain, plain_meta = read(tmp_path / "MONOCHROME2")
    assert np.array_equal(plain, stored.transpose(2, 1, 0) * float(rescale[0]) + float(rescale[1]))
    assert np.array_equal(inverted, plain)
    assert "MONOCHROME1" in notes_of(meta)
    assert plain_meta["notes"] == []


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_missing_rescale_is_noted_for_ct(tmp_path, write_series, modality):
    def edit(dataset, index):
        dataset.Modality = modality
        if index < 3:
            del dataset.RescaleSlope
        del dataset.RescaleIntercept

    series = write_series(tmp_path / "s", edit)
    voxels, meta = read(tmp_path / "s")
    assert np.array_equal(voxels, series.stored.transpose(2, 1, 0))
    ct_notes = [
        "no rescale slope in 3 of 8 files: taken as 1, voxels may not be HU",
        "no rescale intercept in 8 of 8 files: taken as 0, voxels may not be HU",
    ]
    assert meta["notes"] == (ct_notes if modality == "CT" else [])


def test_each_file_has_its_own_rescale(tmp_path, write_series):
    series = write_series(tmp_path / "s", lambda d, i: setattr(d, "RescaleSlope", 1 + i))
    voxels, _ = read(tmp_path / "s")
    expected = series.stored * (1.0 + np.arange(8)[:, None, None]) - 1024
    assert np.array_equal(voxels, expected.transpose(2, 1, 0))


def multi_frame(dataset, index):
    dataset.NumberOfFrames = 3
    dataset.PixelData = dataset.PixelData * 3


def color(dataset, index):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(12 * 16 * 3)


def without(keyword, only=None):
    def edit(dataset, index):
        if only is None or index == only:
            delattr(dataset, keyword)

    return edit


def setting(keyword, value):
    return lambda dataset, index: setattr(dataset, keyword, value)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (multi_frame, UnreadableVolumeError, "holds 3 frames, and no position for any of them"),
        (color, VolumeShapeError, "color"),
        (without("ImagePositionPatient"), UnreadableVolumeError, "8 of 8 files of the series have no position"),
        (without("ImagePositionPatient", 5), IncompleteSeriesError, "1 of 8 files of the series have no position"),
        (without("ImageOrientationPatient", 5), IncompleteSeriesError, "have no orientation"),
        (without("PixelSpacing"), UnreadableVolumeError, "have no pixel spacing"),
        (setting("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), SliceGeometryError, "perpendicular"),
        (setting("SamplesPerPixel", 2), UnreadableVolumeError, "should be a DICOM image"),
        (setting("RescaleSlope", 0), UnreadableVolumeError, "RescaleSlope is 0"),
        (setting("PixelSpacing", [0.5, 0.5, 0.5]), UnreadableVolumeError, "0028,0030.*2 finite numbers"),
    ],
    ids=lambda i: i if isinstance(i, str) else "",
)
def test_series_without_valid_geometry_is_rejected(tmp_path, write_series, edit, error, message):
    write_series(tmp_path / "s", edit)
    with pytest.raises(error, match=message) as caught:
        read(tmp_path / "s")
    assert type(caught.value) is error
    assert not any(i in str(caught.value) for i in PRIVATE)


def test_single_file_is_a_stack_of_one(tmp_path, write_series):
    series = write_series(tmp_path / "s")
    voxels, meta = read(series.files[2])
    assert np.array_equal(voxels[..., 0], series.stored[2].T - np.float32(1024))
    assert voxels.shape == (16, 12, 1)
    assert meta["slice_positions_mm"] == [34.0]
    assert np.diag(meta["affine"]).tolist() == [-0.5, -0.7, 2.0, 1.0]
    assert "single slice" in notes_of(meta)


def test_no_patient_data_in_metadata(tmp_path, write_series):
    write_series(tmp_path / "s")
    (tmp_path / "s" / "x.txt").write_text("text")
    _, meta = read(tmp_path / "s")
    assert len(meta) == 13
    assert not any(i in repr(meta) for i in PRIVATE)


def test_series_larger_than_memory_is_rejected_before_reading_pixels(tmp_path, write_series, monkeypatch):
    write_series(tmp_path / "s")
    monkeypatch.setattr("monai_medpruner.memory.available_memory", lambda: 16 * 12 * 8 * 4 - 1)
    monkeypatch.setattr("monai_medpruner.data.dicom_series.decode_pixels", lambda *args: pytest.fail("pixels read"))
    with pytest.raises(MedPrunerError, match="16 x 12 x 8 voxels"):
        read(tmp_path / "s")


def test_undecodable_pixels_raise_a_typed_error(tmp_path, write_series):
    def edit(dataset, index):  # GDCM cannot invert signed values of 12 bits
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.BitsStored, dataset.HighBit = 12, 11

    write_series(tmp_path / "s", edit, stored=np.zeros((8, 12, 16), np.int16))
    with pytest.raises(UnreadableVolumeError, match="MONOCHROME1 with 12 bits stored in 16"):
        read(tmp_path / "s")
