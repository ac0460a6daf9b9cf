# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Units of a DICOM series: what the header says the values are, and slices that were rescaled in another way."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import IntensityUnitsError
from monai_medpruner.transforms import HUWindows, IntensityWindows, LoadVolume

pydicom = pytest.importorskip("pydicom")
SHAPE = (8, 12, 16)


def read(path):
    reader = VolumeReader()
    return reader.get_data(reader.read(path))


def body(background=-1000.0, noise=5.0, seed=0):
    """HU of a body in air with lungs, (slices, rows, columns); anatomy changes slowly along the slices."""
    rng = np.random.default_rng(seed)
    values = np.full(SHAPE, background)
    values[:, 2:10, 2:14] = 40.0
    values[:, 4:7, 4:7] = -750.0
    values += 3.0 * np.arange(SHAPE[0])[:, None, None]
    return np.rint(values + rng.normal(0, noise, SHAPE))


def stated(**fields):
    """Set or, for None, delete fields of each slice."""

    def edit(dataset, index):
        for keyword, value in fields.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def write_hu(write_series, folder, edit=None, hu=None):
    stored = ((body() if hu is None else hu) + 1024).astype(np.int16)
    write_series(folder, edit, stored=stored)
    return stored - 1024.0


def test_hu_is_no_news(tmp_path, write_series):
    write_hu(write_series, tmp_path / "s", stated(RescaleType="HU"))
    _, meta = read(tmp_path / "s")
    assert "units" not in meta
    assert meta["notes"] == []


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({"RescaleType": "OD"}, "optical densities"),
        ({"RescaleType": "Z_EFF"}, "effective atomic numbers"),
        ({"RescaleType": "ED"}, "electron densities"),
        ({"RescaleType": "EDW"}, "electron densities relative to water"),
        ({"RescaleType": "MGML"}, "mg/ml"),
        ({"RescaleType": "DOE^JANE"}, "other units"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"]}, "effective atomic numbers"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, "amounts of a material"),
        ({"ImageType": ["DERIVED", "SECONDARY", "VOLUME", "SUBTRACTION"]}, "differences of images"),
        ({"ImageType": ["DERIVED", "SECONDARY", "CBF"]}, "of a perfusion map"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "RescaleType": "HU"}, r"of a projection \(localizer\)"),
    ],
    ids=str,
)
def test_ct_in_other_units_gets_no_hu_window(tmp_path, write_series, fields, units):
    """Although its values would pass for HU."""
    expected = write_hu(write_series, tmp_path / "s", stated(**fields))
    image = LoadVolume()(tmp_path / "s")
    assert np.array_equal(image[0], expected.transpose(2, 1, 0))
    assert any("values of this CT by its header" in note for note in image.meta["notes"])
    for windows in (IntensityWindows(), IntensityWindows("ct"), HUWindows()):
        with pytest.raises(IntensityUnitsError, match=f"values are {units}, not Hounsfield units") as caught:
            windows(image)
        assert "DOE" not in str(caught.value)
    assert "DOE" not in repr(image.meta)
    assert IntensityWindows(windows="percentile")(image).shape == image.shape
    assert IntensityWindows(assume_hu=True)(image).shape == image.shape


@pytest.mark.parametrize("fields", [{"RescaleType": "HU"}, {"RescaleType": "HU_MOD"}], ids=str)
def test_hu_of_a_virtual_image_get_hu_windows(tmp_path, write_series, fields):
    image_type = ["DERIVED", "PRIMARY", "AXIAL", "VMI"]
    write_hu(write_series, tmp_path / "s", stated(**fields, ImageType=image_type))
    image = LoadVolume()(tmp_path / "s")
    notes = ["values of this CT by its header: modified HU"] if fields["RescaleType"] == "HU_MOD" else []
    assert image.meta["notes"] == notes
    assert IntensityWindows()(image).meta["notes"] == notes


@pytest.mark.parametrize("fields", [{"RescaleType": "US"}, {"RescaleIntercept": None, "RescaleSlope": None}], ids=str)
def test_unstated_units_of_a_ct_are_a_guess(tmp_path, write_series, fields):
    """As where a NIfTI file names no modality: noted, or refused where the voxels do not look like HU."""
    intercept = -1024 if "RescaleType" in fields else 0
    for name, values in (("hu", body()), ("other", body() + 900)):
        write_series(tmp_path / name, stated(**fields), stored=(values - intercept).astype(np.int16))
    image = LoadVolume()(tmp_path / "hu")
    assert image.meta["units"] == "unstated"
    assert image.meta["notes"]
    assert any("taken for HU" in note for note in IntensityWindows()(image).meta["notes"])
    with pytest.raises(IntensityUnitsError, match="does not state the units"):
        IntensityWindows()(LoadVolume()(tmp_path / "other"))


def test_one_slice_without_a_slope_is_hu(tmp_path, write_series):
    hu = write_hu(write_series, tmp_path / "s", lambda d, i: delattr(d, "RescaleSlope") if i == 3 else None)
    voxels, meta = read(tmp_path / "s")
    assert np.array_equal(voxels, hu.transpose(2, 1, 0))
    assert "units" not in meta
    assert meta["notes"] == ["no rescale slope in 1 of 8 files: taken as 1, voxels may not be HU"]


def test_slices_of_different_units_are_refused(tmp_path, write_series):
    write_hu(write_series, tmp_path / "s", lambda d, i: setattr(d, "RescaleType", "OD" if i == 3 else "HU"))
    with pytest.raises(IntensityUnitsError, match=r"1 of 8 slices.*optical densities against HU"):
        read(tmp_path / "s")


def test_pet_slices_of_different_units_are_refused(tmp_path, write_series):
    def edit(dataset, index):
        dataset.Modality, dataset.Units = "PT", "BQML" if index == 3 else "CNTS"

    write_series(tmp_path / "s", edit)
    with pytest.raises(IntensityUnitsError, match=r"1 of 8 slices.*BQML against CNTS"):
        read(tmp_path / "s")


@pytest.mark.parametrize(
    ("image_type", "part"),
    [
        (["ORIGINAL", "PRIMARY", "P", "ND"], "phase"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),
        (["ORIGINAL", "PRIMARY", "M", "REAL"], "real part"),
        (["ORIGINAL", "PRIMARY", "I", "ND"], "imaginary part"),
    ],
    ids=str,
)
def test_parts_of_a_complex_mr_signal_are_noted(tmp_path, write_series, image_type, part):
    write_series(tmp_path / "s", stated(Modality="MR", ImageType=image_type))
    image = LoadVolume()(tmp_path / "s")
    note = f"values of this MR by its header: {part} of the signal, not its magnitude"
    assert note in image.meta["notes"]
    assert note in IntensityWindows()(image).meta["notes"]
    with pytest.raises(IntensityUnitsError, match="MR"):
        IntensityWindows(windows="soft_tissue")(image)


def test_magnitude_of_mr_is_no_news(tmp_path, write_series):
    write_series(tmp_path / "s", stated(Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"]))
    assert read(tmp_path / "s")[1]["notes"] == []


def odd(place, **fields):
    """Another rescaling of one slice, or of all from a place on."""

    def edit(dataset, index):
        if index == place or (isinstance(place, slice) and index >= place.start):
            stated(**fields)(dataset, index)

    return edit


@pytest.mark.parametrize("place", [0, 3, 7, slice(4, None)], ids=str)
@pytest.mark.parametrize("fields", [{"RescaleIntercept": 0}, {"RescaleIntercept": None}, {"RescaleSlope": 2}], ids=str)
@pytest.mark.parametrize("anatomy", ["body", "random", "constant"])
def test_slice_rescaled_unlike_its_neighbors_is_refused(tmp_path, write_series, place, fields, anatomy):
    random = np.random.default_rng(0).integers(-1000, 2000, SHAPE)
    hu = {"body": body(), "random": random, "constant": np.full(SHAPE, 40)}[anatomy]
    write_hu(write_series, tmp_path / "s", odd(place, **fields), hu)
    with pytest.raises(IntensityUnitsError, match=r"slice \d of 8 along the normal.*its values fit the neighbor's"):
        read(tmp_path / "s")


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_slice_stored_with_another_slope_and_intercept_is_read(tmp_path, write_series, modality):
    """Its stored values differ as well, and its HU are those of its neighbors."""
    hu = body()
    stored = (hu + 1024).astype(np.int16)
    stored[3] = (hu[3] + 2000) * 2

    def edit(dataset, index):
        dataset.Modality = modality
        if index == 3:
            dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -2000

    write_series(tmp_path / "s", edit, stored=stored)
    voxels, meta = read(tmp_path / "s")
    assert np.array_equal(voxels, hu.transpose(2, 1, 0))
    assert meta["notes"] == ["slope and intercept differ between slices (2 pairs) and were applied to each slice"]


def test_pet_has_a_slope_for_each_slice(tmp_path, write_series):
    """Each slice is stored in the full range of 15 bits; by pydicom's values."""
    activity = np.random.default_rng(0).gamma(2.0, 1000.0, SHAPE) * np.linspace(0.1, 3.0, SHAPE[0])[:, None, None]
    slopes = [float(f"{one.max() / 32767:.8g}") for one in activity]
    stored = np.rint(activity / np.array(slopes)[:, None, None]).astype(np.int16)

    def edit(dataset, index):
        dataset.Modality, dataset.Units = "PT", "BQML"
        dataset.RescaleSlope, dataset.RescaleIntercept = slopes[index], 0

    series = write_series(tmp_path / "s", edit, stored=stored)
    voxels, meta = read(tmp_path / "s")
    for index, file in enumerate(series.files):
        dataset = pydicom.dcmread(file)
        expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        np.testing.assert_array_equal(voxels[..., index].T, expected.astype(np.float32))
    assert meta["notes"] == []


@pytest.mark.parametrize("representation", ["US", "SS"])
@pytest.mark.parametrize("implicit", [False, True])
def test_padding_is_stated_in_either_sign(tmp_path, write_series, representation, implicit):
    """-2000 outside the field of view of a signed CT, as US or as SS, becomes -3024 HU."""
    stored = (body() + 1024).astype(np.int16)
    stored[:, :1] = -2000

    def edit(dataset, index):
        value = -2000 if representation == "SS" else 2**16 - 2000
        dataset.add_new(0x00280120, representation, value)

    write_series(tmp_path / "s", edit, stored=stored)
    image = LoadVolume()(tmp_path / "s")
    assert image.meta["padding"] == [-3024.0, -3024.0]
    shown = IntensityWindows(windows="lung")(image)
    assert float(shown[0, :, 0].max()) == 0.0
    assert any("-3024, the header's padding" in note for note in shown.meta["notes"])


@pytest.mark.parametrize("value", [-2000, -3024])
def test_padding_that_is_not_stated(tmp_path, write_series, value):
    """It lies below all windows, and is left out of percentiles."""
    hu = body()
    hu[:, :1] = value
    write_hu(write_series, tmp_path / "s", hu=hu)
    image = LoadVolume()(tmp_path / "s")
    assert float(IntensityWindows(windows="lung")(image)[0, :, 0].max()) == 0.0
    percentiles = IntensityWindows(windows="percentile")(image)
    assert any(f"{value}, which looks like padding" in note for note in percentiles.meta["notes"])
    assert float(percentiles[0, 0, 3, 0]) < 0.1 < float(percentiles[0, 12, 9, 0])
