# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Multi-frame DICOM: every frame at the place that its functional groups state, or a typed error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_slice
from multi_frame_files import (
    AXIAL,
    COLUMNS,
    ROWS,
    SPACING,
    content,
    functional_group,
    measures,
    orientation,
    position,
    rescale,
    write_frames,
)

from monai_medpruner.data import VolumeReader
from monai_medpruner.data.dicom_decoding import DicomDecoding
from monai_medpruner.errors import (
    DuplicateSlicesError,
    EmptyFolderError,
    IncompleteSeriesError,
    IntensityUnitsError,
    MixedSeriesError,
    SliceGeometryError,
    UnreadableVolumeError,
    VolumeShapeError,
)

pydicom = pytest.importorskip("pydicom")
GEOMETRY = (orientation(AXIAL), measures())
#: frames in the order of the file, by their place along the normal
ORDER = (3, 0, 4, 1, 2)


def read(path, **options):
    reader = VolumeReader(**options)
    return reader.get_data(reader.read(path))


def stack(count=5, *macros, start=0.0, gap=2.0):
    return [[position((0, 0, start + gap * place)), *macros] for place in range(count)]


def rescaled(stored, slope=1.0, intercept=-1024.0):
    """By pydicom, one frame."""
    from pydicom.dataset import Dataset
    from pydicom.pixel_data_handlers.util import apply_modality_lut

    dataset = Dataset()
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    return apply_modality_lut(stored, dataset)


@pytest.mark.parametrize(
    "cosines", [AXIAL, (1, 0, 0, 0, -1, 0), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, -0.36, 0.48, 0.8)], ids=str
)
@pytest.mark.parametrize("shared_geometry", [True, False])
def test_value_and_position_of_every_voxel(tmp_path, cosines, shared_geometry):
    """Geometry and rescaling are shared, or stated for each frame."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    places = np.array([-10.0, -20.0, 30.0]) + 2.5 * np.outer(ORDER, np.cross(row, column))
    common = [orientation(cosines), measures(), rescale(2, -1000)]
    frames = [[position(place), *([] if shared_geometry else common)] for place in places]
    write_frames(tmp_path / "a.dcm", frames, common if shared_geometry else [])
    stored = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    voxels, meta = read(tmp_path)
    assert voxels.shape == (COLUMNS, ROWS, 5)
    assert voxels.dtype == np.float32
    assert voxels.flags.f_contiguous
    for x, y, z in np.ndindex(voxels.shape):
        frame = ORDER.index(z)
        assert voxels[x, y, z] == rescaled(stored[frame], 2, -1000)[y, x]
        lps = places[frame] + x * SPACING[1] * row + y * SPACING[0] * column
        np.testing.assert_allclose(meta["affine"] @ [x, y, z, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-5)
    assert (meta["modality"], meta["nonuniform"], meta["notes"]) == ("CT", False, [])
    assert "DOE" not in repr(meta)


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"])
def test_other_encodings(tmp_path, syntax):
    write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale()], syntax=syntax)
    stored = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    voxels, _ = read(tmp_path / "a.dcm")
    assert np.array_equal(voxels, (stored - 1024.0).transpose(2, 1, 0))


def test_sequences_of_undefined_length(tmp_path):
    def edit(dataset):
        dataset.PerFrameFunctionalGroupsSequence.is_undefined_length = True
        for element in dataset.SharedFunctionalGroupsSequence[0]:
            element.is_undefined_length = True
        for item in dataset.PerFrameFunctionalGroupsSequence:
            item.is_undefined_length_sequence_item = True

    stored = write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale()], edit=edit)
    assert np.array_equal(read(tmp_path)[0], (stored - 1024.0).transpose(2, 1, 0))


def test_compressed_frames(tmp_path):
    pytest.importorskip("pydicom", minversion="3")
    stored = write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale()])
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm")
    assert np.array_equal(read(tmp_path)[0], (stored - 1024.0).transpose(2, 1, 0))


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
@pytest.mark.parametrize(("first", "step"), [(1.0, 0.0), (1.0, 0.37), (0.25, 0.0), (0.25, 0.37)])
def test_each_frame_has_its_own_rescaling(tmp_path, separate, dtype, first, step):
    """GDCM applies that of the first frame to all; enhanced PET has one for each frame."""
    info = np.iinfo(dtype)
    stored = np.random.default_rng(0).integers(info.min, info.max + 1, (5, ROWS, COLUMNS)).astype(dtype)
    factors = [(first + step * place, -3.0 * place + step) for place in range(5)]
    frames = [[*one, rescale(*pair, "BQML")] for one, pair in zip(stack(), factors, strict=True)]
    write_frames(
        tmp_path / "a.dcm", frames, GEOMETRY, sop_class="EnhancedPETImageStorage", modality="PT", stored=stored
    )
    voxels, meta = read(tmp_path, decoding=DicomDecoding(separate=separate))
    for place, (slope, intercept) in enumerate(factors):
        expected = rescaled(stored[place], slope, intercept).astype(np.float32)
        assert np.array_equal(voxels[..., place].T, expected)
    assert meta["notes"] == []


@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_is_not_inverted(tmp_path, signed):
    stored = np.random.default_rng(0).integers(0, 4096, (5, ROWS, COLUMNS)).astype("int16" if signed else "uint16")

    def edit(dataset):
        dataset.PhotometricInterpretation = "MONOCHROME1"

    write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale(2, -1024)], stored=stored, edit=edit)
    voxels, meta = read(tmp_path)
    assert np.array_equal(voxels, (stored * 2.0 - 1024).transpose(2, 1, 0))
    assert any("MONOCHROME1" in note for note in meta["notes"])


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("EnhancedMRImageStorage", "MR"),
        ("LegacyConvertedEnhancedCTImageStorage", "CT"),
        ("LegacyConvertedEnhancedMRImageStorage", "MR"),
        ("XRay3DAngiographicImageStorage", "XA"),
        ("BreastTomosynthesisImageStorage", "MG"),
        ("MultiFrameGrayscaleWordSecondaryCaptureImageStorage", "OT"),
    ],
)
def test_other_kinds_of_objects(tmp_path, sop_class, modality):
    shared = [*GEOMETRY, rescale(0.5, 3)]
    stored = write_frames(tmp_path / "a.dcm", stack(), shared, sop_class=sop_class, modality=modality)
    voxels, meta = read(tmp_path)
    assert np.array_equal(voxels, (stored * 0.5 + 3).transpose(2, 1, 0))
    assert meta["modality"] == modality


def test_one_frame(tmp_path):
    """An enhanced object of one frame states its place in functional groups as well."""
    stored = write_frames(tmp_path / "a.dcm", stack(1, start=7.0), [*GEOMETRY, rescale()])
    voxels, meta = read(tmp_path)
    assert np.array_equal(voxels[..., 0].T, stored[0] - 1024.0)
    assert meta["slice_positions_mm"] == [7.0]


def test_an_object_for_each_half(tmp_path):
    """A concatenation."""
    first = write_frames(tmp_path / "b.dcm", stack(3), [*GEOMETRY, rescale()])
    second = write_frames(tmp_path / "a.dcm", stack(2, start=6.0), [*GEOMETRY, rescale()], seed=1)
    voxels, meta = read(tmp_path)
    assert np.array_equal(voxels, (np.concatenate([first, second]) - 1024.0).transpose(2, 1, 0))
    assert np.allclose(meta["slice_positions_mm"], [0, 2, 4, 6, 8])


def test_frames_beside_single_slices(tmp_path):
    stored = write_frames(tmp_path / "a.dcm", stack(3), [*GEOMETRY, rescale()])

    def edit(dataset):
        dataset.PixelSpacing, dataset.RescaleIntercept = list(SPACING), -1024

    write_slice(tmp_path / "b.dcm", edit, z=6.0)
    voxels, _ = read(tmp_path)
    assert np.array_equal(voxels[..., :3], (stored - 1024.0).transpose(2, 1, 0))
    assert np.array_equal(voxels[..., 3].T, np.arange(0, 96, 2).reshape(6, 8) - 1024)


def test_missing_frame_is_noted(tmp_path):
    frames = stack(6)
    del frames[2]
    write_frames(tmp_path / "a.dcm", frames, [*GEOMETRY, rescale()])
    _, meta = read(tmp_path)
    assert meta["nonuniform"] is True
    assert any("1 slice may be missing" in note for note in meta["notes"])


def test_stated_padding_in_the_volumes_units(tmp_path):
    def edit(dataset):
        dataset.add_new(0x00280120, "US", 0)
        dataset.add_new(0x00280121, "US", 4)

    write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale(2)], edit=edit)
    assert read(tmp_path)[1]["padding"] == [-1024.0, -1016.0]


def diffusion(value, direction=None):
    kind = "NONE" if direction is None else "DIRECTIONAL"
    values = {"DiffusionBValue": value, "DiffusionDirectionality": kind}
    if direction is not None:
        values["own"] = functional_group("DiffusionGradientDirectionSequence", DiffusionGradientOrientation=direction)
    return functional_group("MRDiffusionSequence", **values)


VOLUMES = {
    "StackID": [content(StackID="1"), content(StackID="2")],
    "AcquisitionNumber": [content(FrameAcquisitionNumber=1), content(FrameAcquisitionNumber=2)],
    "TemporalPositionIdentifier": [content(TemporalPositionIndex=1), content(TemporalPositionIndex=2)],
    "TemporalPositionTimeOffset": [
        functional_group("TemporalPositionSequence", TemporalPositionTimeOffset=float(value)) for value in (0, 30)
    ],
    "EchoTime": [functional_group("MREchoSequence", EffectiveEchoTime=value) for value in (10.5, 98.0)],
    "DiffusionBValue": [diffusion(0.0), diffusion(1000.0)],
    "DiffusionGradientOrientation": [diffusion(1000.0, [0.0, 1.0, 0.0]), diffusion(1000.0, [1.0, 0.0, 0.0])],
    "TriggerTime": [
        functional_group("CardiacSynchronizationSequence", NominalCardiacTriggerDelayTime=float(value))
        for value in (0, 400)
    ],
    "ImageType": [
        functional_group("MRImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", value])
        for value in ("NONE", "T2")
    ],
    "ComplexImageComponent": [
        functional_group("MRImageFrameTypeSequence", ComplexImageComponent=value) for value in ("MAGNITUDE", "PHASE")
    ],
    "ConvolutionKernel": [
        functional_group("CTReconstructionSequence", ConvolutionKernel=value) for value in ("B30f", "B70f")
    ],
}


@pytest.mark.parametrize("field", list(VOLUMES))
def test_several_volumes_are_listed_and_chosen(tmp_path, field):
    """Their frames alternate in the file."""
    frames = [[place, macro] for (place,) in stack(4) for macro in VOLUMES[field]]
    stored = write_frames(tmp_path / "a.dcm", frames, [*GEOMETRY, rescale(1, 0, "US")], modality="MR")
    with pytest.raises(MixedSeriesError, match=rf"2 volumes.*differ in {field}.*1: 4 slices, 0\.0 to 6\.0 mm; 2: 4"):
        read(tmp_path)
    for part in (1, 2):
        assert np.array_equal(read(tmp_path, series_part=part)[0], stored[part - 1 :: 2].transpose(2, 1, 0))
    with pytest.raises(MixedSeriesError, match="no volume 3"):
        read(tmp_path, series_part=3)


def test_volumes_that_differ_in_two_fields(tmp_path):
    """Two directions of one b-value, and an image without diffusion weighting."""
    kinds = [diffusion(0.0), diffusion(800.0, [1.0, 0.0, 0.0]), diffusion(800.0, [0.0, 0.0, 1.0])]
    frames = [[place, macro] for macro in kinds for (place,) in stack(4)]
    stored = write_frames(tmp_path / "a.dcm", frames, [*GEOMETRY, rescale(1, 0, "US")], modality="MR")
    with pytest.raises(MixedSeriesError, match=r"3 volumes.*differ in DiffusionBValue, DiffusionGradientOrientation"):
        read(tmp_path)
    found = [read(tmp_path, series_part=part)[0] for part in (1, 2, 3)]
    expected = [stored[i : i + 4].transpose(2, 1, 0) for i in (0, 8, 4)]  # by the text of the direction
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def dimensions(*pointers):
    """The dimension index of an object."""

    def edit(dataset):
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence

        items = []
        for pointer in pointers:
            item = Dataset()
            item.DimensionIndexPointer = pointer
            items.append(item)
        dataset.DimensionIndexSequence = Sequence(items)

    return edit


def test_volumes_told_apart_by_a_dimension_alone(tmp_path):
    """A private dimension; the one that counts the slices does not divide."""
    frames = [
        [place, content(DimensionIndexValues=[number + 1, kind])]
        for number, (place,) in enumerate(stack(4))
        for kind in (1, 2)
    ]
    edit = dimensions(0x00200032, 0x20051010)
    stored = write_frames(tmp_path / "a.dcm", frames, [*GEOMETRY, rescale()], edit=edit)
    with pytest.raises(MixedSeriesError, match=r"2 volumes.*DimensionIndexValues"):
        read(tmp_path)
    assert np.array_equal(read(tmp_path, series_part=2)[0], (stored[1::2] - 1024.0).transpose(2, 1, 0))


def test_steps_and_numbers_of_slices_are_one_volume(tmp_path):
    """Stacks that follow one another, and a dimension that counts slices."""
    frames = [
        [place, content(StackID=str(number // 3), InStackPositionNumber=number % 3 + 1, DimensionIndexValues=[number])]
        for number, (place,) in enumerate(stack(6))
    ]
    write_frames(tmp_path / "a.dcm", frames, [*GEOMETRY, rescale()], edit=dimensions(0x00209057))
    voxels, meta = read(tmp_path)
    assert voxels.shape[2] == 6
    assert meta["notes"] == []


def no_frames(dataset):
    del dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence


def cine(dataset):
    no_frames(dataset)
    dataset.FrameIncrementPointer, dataset.FrameTime = 0x00181063, 40


def color(dataset):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(5 * ROWS * COLUMNS * 3)


def fewer_groups(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[4]


def short_pixels(dataset):
    dataset.PixelData = dataset.PixelData[: -2 * ROWS * COLUMNS]


def relative(dataset):
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
        functional_group("PlanePositionVolumeSequence", ImagePositionVolume=[0.0, 0.0, 0.0])(group)


def one_without_position(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def wrong_position(dataset):
    dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient = [0, 1]


def no_spacing(dataset):
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence


def same_position(dataset):
    items = dataset.PerFrameFunctionalGroupsSequence
    items[3].PlanePositionSequence[0].ImagePositionPatient = items[2].PlanePositionSequence[0].ImagePositionPatient


def other_orientation(dataset):
    orientation([1, 0, 0, 0, 0, -1])(dataset.PerFrameFunctionalGroupsSequence[1])


def other_units(dataset):
    rescale(1, 0, "Z_EFF")(dataset.PerFrameFunctionalGroupsSequence[1])


def no_slope(dataset):
    rescale(0, 0)(dataset.PerFrameFunctionalGroupsSequence[1])


def no_first_slope(dataset):
    rescale(0, 0)(dataset.PerFrameFunctionalGroupsSequence[0])


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (no_frames, UnreadableVolumeError, "holds 5 frames, and no position for any"),
        (cine, UnreadableVolumeError, "5 frames, which follow one another in time"),
        (color, VolumeShapeError, "5 frames in color"),
        (fewer_groups, UnreadableVolumeError, "5 frames, but functional groups of 4"),
        (short_pixels, UnreadableVolumeError, "the file is incomplete"),
        (relative, UnreadableVolumeError, "5 frames, placed relative to an ultrasound volume"),
        (one_without_position, UnreadableVolumeError, "frame 4 of 5 has no position"),
        (wrong_position, UnreadableVolumeError, r"frame 4: DICOM tag \(0020,0032\) must contain 3"),
        (no_spacing, UnreadableVolumeError, "5 of 5 frames of the series have no pixel spacing"),
        (same_position, DuplicateSlicesError, "1 of 5 slices have the same position"),
        (other_orientation, SliceGeometryError, "1 of 5 frames of the series differ"),
        (other_units, IntensityUnitsError, "1 of 5 slices.*effective atomic numbers against HU"),
        (no_slope, UnreadableVolumeError, "RescaleSlope is 0"),
        (no_first_slope, UnreadableVolumeError, "RescaleSlope is 0"),
    ],
    ids=lambda i: getattr(i, "__name__", ""),
)
def test_what_cannot_be_right_is_refused_by_its_cause(tmp_path, edit, error, message):
    write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale()], edit=edit)
    with pytest.raises(error, match=message) as caught:
        read(tmp_path)
    assert type(caught.value) is error
    assert not any(one in str(caught.value) for one in ("DOE", "JANE", "4711", "1.2.826"))


@pytest.mark.parametrize(
    ("sop_class", "kind"), [("SegmentationStorage", "segmentation"), ("RTDoseStorage", "radiotherapy dose")]
)
def test_masks_and_doses_are_no_images(tmp_path, sop_class, kind):
    write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale()], sop_class=sop_class)
    with pytest.raises(EmptyFolderError, match=rf"{kind} \(1\)"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "rtdose.dcm", "liver_1frame.dcm", "SC_rgb_rle_2frame.dcm"])
def test_objects_of_pydicom(name):
    """An ultrasound loop, a dose, a segmentation, a screenshot."""
    import pydicom

    path = next((Path(pydicom.__file__).parent / "data" / "test_files").rglob(name), None)
    if path is None:
        pytest.skip("pydicom 2 does not install this file")
    message = {"rtdose.dcm": "radiotherapy dose", "liver_1frame.dcm": "segmentation"}.get(name, "frames in color")
    with pytest.raises((EmptyFolderError, VolumeShapeError), match=message):
        read(path)


def test_hostile_nesting_and_number_of_elements(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_medpruner.data.dicom_elements._MAX_ELEMENTS", 100)
    write_frames(tmp_path / "a.dcm", stack(20), [*GEOMETRY, rescale()])
    with pytest.raises(UnreadableVolumeError, match="more than 100 elements"):
        read(tmp_path)


def test_frames_larger_than_memory_are_refused_before_decoding(tmp_path, monkeypatch):
    write_frames(tmp_path / "a.dcm", stack(), [*GEOMETRY, rescale()])
    monkeypatch.setattr("monai_medpruner.memory.available_memory", lambda: 16 * 5 * ROWS * COLUMNS - 1)
    with pytest.raises(UnreadableVolumeError, match="8 x 6 x 5 voxels"):
        read(tmp_path)


def test_incomplete_series_of_a_frame_and_a_slice(tmp_path):
    write_frames(tmp_path / "a.dcm", stack(3), [*GEOMETRY, rescale()])
    write_slice(tmp_path / "b.dcm", lambda dataset: delattr(dataset, "ImagePositionPatient"), z=6.0)
    with pytest.raises(IncompleteSeriesError, match="1 of 4 frames of the series have no position"):
        read(tmp_path)
