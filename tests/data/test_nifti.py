# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A NIfTI file is read completely or rejected."""

from __future__ import annotations

import gzip
import shutil
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import NibabelReader

from monai_medpruner.data import ReadingLimits, VolumeReader
from monai_medpruner.errors import MedPrunerError, SpacingError, UnreadableVolumeError, VolumeShapeError

AFFINE = np.array([[0, -0.7, 0, 11.0], [0.5, 0, 0, -12.0], [0, 0, 2.5, 13.0], [0, 0, 0, 1]])


def read(path):
    reader = VolumeReader()
    return reader.get_data(reader.read(path))


def random_voxels(dtype="int16", shape=(7, 6, 5)):
    return (np.random.default_rng(0).normal(size=shape) * 500).astype(dtype)


def write(path, voxels=None, image=nib.Nifti1Image, affine=AFFINE, **header):
    result = image(random_voxels() if voxels is None else voxels, affine)
    for key, value in header.items():
        result.header[key] = value
    nib.save(result, path)
    return path


def patch(path, offset, layout, *values):
    """Change header bytes of an uncompressed file; nibabel would not write such a header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)
    return path


PIXDIM_3, XFORM_CODES, SFORM_ROWS = 88, 252, 280


@pytest.mark.parametrize(
    "name", ["ct_torso_nifti/ct.nii.gz", "ct_torso_nifti/ct_small.nii.gz", "mr_torso_nifti/mr_small.nii.gz"]
)
def test_real_file_equals_nibabel_reader(shared_data, name):
    path = shared_data(name)
    expected, expected_meta = (reader := NibabelReader()).get_data(reader.read(str(path)))
    voxels, meta = read(path)
    assert voxels.dtype == np.float32
    assert np.array_equal(voxels, expected)
    assert np.array_equal(meta["affine"], expected_meta["affine"])
    assert (meta["notes"], meta["nonuniform"]) == ([], False)
    assert not {"modality", "slice_axis", "slice_positions_mm", "gantry_tilt_degrees"} & set(meta)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("image", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
def test_values_and_positions_in_every_file_format(tmp_path, suffix, image, dtype):
    voxels = random_voxels(dtype)
    result, meta = read(write(tmp_path / f"v{suffix}", voxels, image))
    assert result.dtype == np.dtype("float32")
    assert np.array_equal(result, voxels.astype("float32"))
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-6)


def test_scaling_is_applied(tmp_path):
    path = tmp_path / "v.nii"
    image = nib.Nifti1Image(random_voxels("float64"), AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, path)
    header = nib.load(path)
    stored = np.asarray(header.dataobj.get_unscaled())
    voxels, _ = read(path)
    assert header.dataobj.slope != 1
    assert np.array_equal(voxels, (stored * header.dataobj.slope + header.dataobj.inter).astype(np.float32))


def test_non_finite_voxels_are_kept(tmp_path):
    voxels = random_voxels("float32")
    voxels[1, 2, 3], voxels[0, 0, 0] = np.nan, -np.inf
    result, _ = read(write(tmp_path / "v.nii.gz", voxels))
    assert np.array_equal(result, voxels, equal_nan=True)


def test_four_axes_are_channels_last(tmp_path):
    voxels = random_voxels(shape=(4, 5, 6, 3))
    result, meta = read(write(tmp_path / "v.nii", voxels))
    assert np.array_equal(result, voxels)
    assert (meta["original_channel_dim"], meta["spatial_shape"].tolist()) == (-1, [4, 5, 6])


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 5, 6, 1, 3)])
def test_other_numbers_of_axes_are_rejected(tmp_path, shape):
    with pytest.raises(VolumeShapeError, match="three spatial axes"):
        read(write(tmp_path / "v.nii", random_voxels(shape=shape)))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("complex64", "complex"), (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "color")]
)
def test_complex_and_color_voxels_are_rejected(tmp_path, dtype, kind):
    with pytest.raises(VolumeShapeError, match=kind):
        read(write(tmp_path / "v.nii", np.zeros((3, 4, 5), dtype)))


@settings(max_examples=60, deadline=None)
@given(part=st.floats(0, 1, exclude_max=True), suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_truncated_file_is_rejected(tmp_path_factory, part, suffix):
    path = write(tmp_path_factory.mktemp("cut") / f"v{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UnreadableVolumeError):
        read(path)


@pytest.mark.parametrize("lost", [1, 4, 8, 9])
def test_missing_checksum_is_detected(tmp_path, lost):
    path = write(tmp_path / "v.nii.gz")
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(UnreadableVolumeError, match=r"v\.nii\.gz is cut short or damaged \(EOFError") as caught:
        read(path)
    assert isinstance(caught.value.__cause__, EOFError)


@settings(max_examples=80, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_damaged_gzip_is_rejected_or_harmless(tmp_path_factory, position, flip):
    voxels = random_voxels()
    path = write(tmp_path_factory.mktemp("damaged") / "v.nii.gz", voxels)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    try:
        result, meta = read(path)
    except MedPrunerError:
        return
    # the checksum does not cover the name and time in the gzip header
    assert np.array_equal(result, voxels)
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 347), value=st.integers(0, 255))
def test_damaged_header_raises_only_typed_errors(tmp_path_factory, position, value):
    path = patch(write(tmp_path_factory.mktemp("header") / "v.nii"), position, "B", value)
    try:
        voxels, _ = read(path)
    except MedPrunerError:
        return
    assert voxels.size <= path.stat().st_size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.nii", "gz", "content is gzip.*rename it to .nii.gz"),
        ("v.nii.gz", "plain", "content is not gzip.*rename it to .nii"),
        ("v.nii.gz", b"a text " * 100, "not gzip"),
        ("v.nii", b"a text " * 100, "no NIfTI header"),
        ("v.nii.gz", gzip.compress(b"a text " * 100, mtime=0), "no NIfTI header"),
        ("v.nii", b"", "empty"),
        ("v.nii.gz", b"", "empty"),
        ("v.img", b"a text " * 100, r"pairs of .hdr and .img"),
        ("v.mha", b"a text " * 100, "unknown format"),
        ("v", b"", "an empty file"),
    ],
)
def test_content_that_contradicts_the_name(tmp_path, name, content, message):
    if isinstance(content, str):
        source = write(tmp_path / {"gz": "source.nii.gz", "plain": "source.nii"}[content])
        shutil.copy(source, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVolumeError, match=message):
        read(tmp_path / name)


def test_volume_larger_than_memory_is_rejected_before_reading(tmp_path):
    path = write(tmp_path / "v.nii.gz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:48] = struct.pack("<4h", 3, 32767, 32767, 32767)
    path.write_bytes(gzip.compress(content))
    with pytest.raises(UnreadableVolumeError, match=r"32767 x 32767 x 32767 voxels, which needs 262120\.0 GiB"):
        VolumeReader(limits=ReadingLimits(voxels=10**15, slices=10**6, gib=10**9)).read(path)


@pytest.mark.parametrize("size", [0.0, -2.0, np.nan])
def test_voxel_size_that_nibabel_would_replace_is_rejected(tmp_path, size):
    path = patch(write(tmp_path / "v.nii"), XFORM_CODES, "<2h", 1, 0)
    assert read(path)[1]["spatial_shape"].tolist() == [7, 6, 5]
    patch(path, PIXDIM_3, "<f", size)
    with pytest.raises(SpacingError, match="voxel sizes"):
        read(path)


def test_voxel_sizes_are_ignored_if_there_is_an_affine(tmp_path):
    _, meta = read(patch(write(tmp_path / "v.nii"), PIXDIM_3, "<f", 0.0))
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-6)


def test_zero_spacing_in_the_affine_is_found_by_check_volume(tmp_path):
    path = patch(write(tmp_path / "v.nii"), SFORM_ROWS, "<12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    _, meta = read(path)
    assert meta["affine"][:3, 2].tolist() == [0, 0, 0]


def test_header_without_orientation_is_noted(tmp_path):
    voxels, meta = read(patch(write(tmp_path / "v.nii"), XFORM_CODES, "<2h", 0, 0))
    assert ["gives no orientation" in i for i in meta["notes"]] == [True]
    assert np.diag(meta["affine"])[:3].tolist() == pytest.approx([-0.5, 0.7, 2.5])
    assert np.array_equal(voxels, random_voxels())


@pytest.mark.parametrize(("unit", "factor", "noted"), [(0, 1, 0), (1, 1000, 1), (2, 1, 0), (3, 0.001, 1), (10, 1, 0)])
def test_lengths_are_in_mm(tmp_path, unit, factor, noted):
    stored = AFFINE / factor
    _, meta = read(write(tmp_path / "v.nii", affine=np.vstack([stored[:3], AFFINE[3]]), xyzt_units=unit))
    np.testing.assert_allclose(meta["affine"][:3], AFFINE[:3], rtol=1e-6)
    assert sum("converted to mm" in i for i in meta["notes"]) == noted


@pytest.mark.parametrize("unit", [1, 3])
def test_unit_that_gives_impossible_sizes_is_noted_and_not_used(tmp_path, unit):
    _, meta = read(write(tmp_path / "v.nii", xyzt_units=unit))
    np.testing.assert_allclose(meta["affine"], AFFINE, rtol=1e-6)
    assert ["taken as mm" in i for i in meta["notes"]] == [True]


@pytest.mark.parametrize(("largest", "noted"), [(2**24, 0), (-(2**24) - 1, 1), (2**24 + 1, 1)])
def test_integers_beyond_float32_are_noted(tmp_path, largest, noted):
    voxels = random_voxels("int32")
    voxels[1, 1, 1] = largest
    _, meta = read(write(tmp_path / "v.nii", voxels))
    assert [f"up to {abs(largest)}" in i for i in meta["notes"]] == [True] * noted


def test_header_text_is_not_copied(tmp_path):
    _, meta = read(write(tmp_path / "v.nii", descrip=b"DOE^JANE", db_name=b"ID4711", aux_file=b"DOE"))
    assert not any(i in repr(meta) for i in ("DOE", "4711"))
