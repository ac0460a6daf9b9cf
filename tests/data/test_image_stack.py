# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes without geometry: .npy files in M3D's format, folders of PNG or JPEG slices."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import (
    DuplicateSlicesError,
    IntensityUnitsError,
    MedPrunerError,
    NonFiniteVoxelsError,
    SettingsError,
    SliceGeometryError,
    UnreadableVolumeError,
    VolumeShapeError,
)
from monai_medpruner.transforms import CheckVolume, IntensityWindows, LoadVolume, SlicePlane

DEPTH, HEIGHT, WIDTH = 12, 6, 5
RNG = np.random.default_rng(3)
STORED = RNG.random((1, DEPTH, HEIGHT, WIDTH))
GREY = RNG.integers(0, 256, (DEPTH, HEIGHT, WIDTH)).astype(np.uint8)


def save_npy(folder: Path, array: np.ndarray = STORED) -> Path:
    np.save(folder / "volume.npy", array)
    return folder / "volume.npy"


def save_slices(folder: Path, name: str = "{}.png", gray: np.ndarray = GREY, first: int = 0) -> Path:
    """Write slices without leading zeros, whose names sort as text in the order 0, 1, 10, 11, 2."""
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(gray, start=first):
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder


def oriented(path: Path):
    return SlicePlane()(CheckVolume()(LoadVolume()(path)))


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, dtype, order):
    array = np.asarray(STORED.astype(dtype), order=order)
    volume = oriented(save_npy(tmp_path, array))
    expected = np.empty((1, HEIGHT, WIDTH, DEPTH), np.float32)
    for slice_index in range(DEPTH):
        expected[..., slice_index] = array[:, slice_index]
    assert np.array_equal(volume.numpy(), expected)
    assert volume.meta["intensity"] == "unit"
    assert volume.meta["plane"] == "axial"
    assert any(".npy file has no geometry" in note for note in volume.meta["notes"])
    assert np.array_equal(IntensityWindows()(volume).numpy(), expected)


def test_npy_in_m3ds_format(tmp_path):
    array = np.zeros((1, 32, 256, 256), np.float32)
    array[0, 31, 0, 255] = 1
    volume = oriented(save_npy(tmp_path, array))
    assert volume.shape == (1, 256, 256, 32)
    assert np.argwhere(volume.numpy()).tolist() == [[0, 0, 255, 31]]


def test_reader_gives_columns_rows_slices(tmp_path):
    reader = VolumeReader()
    voxels, meta = reader.get_data(reader.read(save_npy(tmp_path)))
    assert voxels.shape == (WIDTH, HEIGHT, DEPTH)
    assert voxels.flags.f_contiguous
    assert voxels.dtype == np.float32
    assert np.array_equal(meta["affine"], np.diag([-1, -1, 1, 1]))  # the identity in LPS
    assert reader.verify_suffix(tmp_path / "volume.npy")


@pytest.mark.parametrize(
    ("name", "first"), [("{}.png", 0), ("{:03d}.PNG", 7), ("case_2_slice{}-axial.png", 1), ("{}.bmp.png", 0)]
)
def test_slices_are_sorted_by_number(tmp_path, name, first):
    if name == "{}.bmp.png":
        (tmp_path / ".DS_Store").write_bytes(b"hidden files are no slices")
    volume = oriented(save_slices(tmp_path, name, first=first))
    assert np.array_equal(volume.numpy(), GREY.transpose(1, 2, 0)[None].astype(np.float32))
    assert volume.meta["intensity"] == "uint8"
    assert volume.meta["plane"] == "axial"
    assert [note for note in volume.meta["notes"] if "0 to 255" in note]
    scaled = IntensityWindows()(volume)
    np.testing.assert_allclose(scaled.numpy(), volume.numpy() / 255, atol=1e-7)
    assert scaled.meta["intensity"] == "unit"
    assert np.array_equal(IntensityWindows()(scaled).numpy(), scaled.numpy())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_gray_slices_stored_with_several_channels(tmp_path, mode):
    for number, pixels in enumerate(GREY):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{number}.png")
    assert np.array_equal(oriented(tmp_path).numpy()[0], GREY.transpose(1, 2, 0))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path, mode):
    """Compare with the slices decoded by PIL, because JPEG is lossy."""
    for number, pixels in enumerate(GREY):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{number}.jpeg")
    decoded = [np.asarray(Image.open(tmp_path / f"{number}.jpeg").convert("L")) for number in range(DEPTH)]
    assert np.array_equal(oriented(tmp_path).numpy()[0], np.stack(decoded, axis=-1))


def test_missing_numbers_are_noted(tmp_path):
    save_slices(tmp_path)
    (tmp_path / "4.png").unlink()
    (tmp_path / "8.png").unlink()
    volume = LoadVolume()(tmp_path)
    assert volume.shape[-1] == DEPTH - 2
    assert "2 numbers between 0 and 11 have no slice: slices may be missing" in volume.meta["notes"]


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def pickled_object(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


BROKEN_NPY = {
    "cut short": (lambda path: truncate(path), UnreadableVolumeError, "cut short"),
    "header cut": (lambda path: truncate(path, 0.003), UnreadableVolumeError, "cut short"),
    "empty": (lambda path: path.write_bytes(b""), UnreadableVolumeError, "empty file"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), UnreadableVolumeError, "pickled objects"),
    "pickled array": (pickled_object, UnreadableVolumeError, "pickled objects"),
    "archive": (lambda path: np.savez(path.open("wb"), a=STORED), UnreadableVolumeError, "is not a plain .npy file"),
    "no channel": (lambda path: np.save(path, STORED[0]), VolumeShapeError, r"\(12, 6, 5\)"),
    "channels": (lambda path: np.save(path, np.repeat(STORED, 3, 0)), VolumeShapeError, r"\(3, 12, 6, 5\)"),
    "integers": (lambda path: np.save(path, GREY[None]), VolumeShapeError, "uint8"),
    "complex": (lambda path: np.save(path, STORED * 1j), VolumeShapeError, "complex128"),
}


@pytest.mark.parametrize("case", BROKEN_NPY)
def test_broken_npy(tmp_path, case):
    breaking, error, message = BROKEN_NPY[case]
    path = save_npy(tmp_path)
    breaking(path)
    with pytest.raises(error, match=message):
        VolumeReader().read(path)


def color(folder: Path) -> None:
    pixels = np.stack([GREY[4]] * 3, axis=-1)
    pixels[2, 3, 1] ^= 1
    Image.fromarray(pixels).save(folder / "4.png")


def transparent(folder: Path) -> None:
    pixels = np.stack([GREY[4]] * 3 + [np.full_like(GREY[4], 255)], axis=-1)
    pixels[0, 0, 3] = 254
    Image.fromarray(pixels).save(folder / "4.png")


BROKEN_STACKS = {
    "no number": (
        lambda folder: (folder / "4.png").rename(folder / "four.png"),
        UnreadableVolumeError,
        "four.png has no number",
    ),
    "two stacks": (lambda folder: (folder / "4.png").rename(folder / "b4.png"), UnreadableVolumeError, "two stacks"),
    "same number": (lambda folder: Image.fromarray(GREY[0]).save(folder / "04.png"), DuplicateSlicesError, "slice 4"),
    "mixed sizes": (
        lambda folder: Image.fromarray(GREY[4].T).save(folder / "4.png"),
        SliceGeometryError,
        "4.png has 6 x 5 pixels, 0.png 5 x 6",
    ),
    "cut short": (lambda folder: truncate(folder / "4.png"), UnreadableVolumeError, "4.png.*cut short"),
    "no image": (lambda folder: (folder / "4.png").write_text("text"), UnreadableVolumeError, "4.png is not a PNG"),
    "color": (color, VolumeShapeError, "4.png is in color"),
    "transparent": (transparent, VolumeShapeError, "4.png is in color or transparent"),
    "16 bit": (
        lambda folder: Image.fromarray(GREY[4].astype(np.uint16) * 256).save(folder / "4.png"),
        VolumeShapeError,
        "4.png has pixels of mode I;16",
    ),
    "other files": (lambda folder: (folder / "labels.csv").write_text("a"), UnreadableVolumeError, "labels.csv"),
}


@pytest.mark.parametrize("case", BROKEN_STACKS)
def test_broken_stack(tmp_path, case):
    breaking, error, message = BROKEN_STACKS[case]
    breaking(save_slices(tmp_path / "stack") and tmp_path / "stack")
    with pytest.raises(error, match=message):
        VolumeReader().read(tmp_path / "stack")


def test_folder_with_dicom_files_is_read_as_dicom(tmp_path, write_series):
    series = write_series(tmp_path / "s")
    Image.fromarray(GREY[0]).save(tmp_path / "s" / "preview 1.png")
    volume = VolumeReader().read(tmp_path / "s")
    assert np.array_equal(volume.voxels, series.stored.transpose(2, 1, 0) - np.float32(1024))
    assert "intensity" not in volume.meta
    for file in series.files:  # known by their content, whatever their names
        file.rename(file.with_suffix(".slice"))
    assert np.array_equal(VolumeReader().read(tmp_path / "s").voxels, volume.voxels)


@pytest.mark.parametrize("save", [save_npy, save_slices])
def test_series_uid_is_only_for_dicom(tmp_path, save):
    with pytest.raises(SettingsError, match="series_uid chooses from a DICOM folder"):
        VolumeReader("1.2").read(save(tmp_path))


def test_non_finite_voxels_are_found_by_check_volume(tmp_path):
    array = STORED.copy()
    array[0, 0, 0, 0] = np.nan
    volume = LoadVolume()(save_npy(tmp_path, array))
    with pytest.raises(NonFiniteVoxelsError, match="1 of 360"):
        CheckVolume()(volume)
    with pytest.raises(IntensityUnitsError):
        IntensityWindows()(volume)


@pytest.mark.parametrize("windows", ["auto", "unit", "soft_tissue", [[-160, 240]]])
@pytest.mark.parametrize("modality", ["auto", "ct"])
def test_image_stacks_are_never_treated_as_hounsfield_units(tmp_path, windows, modality):
    volume = oriented(save_npy(tmp_path))
    if windows in ("auto", "unit"):
        assert np.array_equal(IntensityWindows(modality, windows)(volume).numpy(), volume.numpy())
        volume = oriented(save_npy(tmp_path, STORED * 1.001 + 0.001))
    with pytest.raises(MedPrunerError):
        IntensityWindows(modality, windows)(volume)


def save_colored(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write 12 slices; 3 and 8 are in color, 4 is transparent. Return their gray values, all and without 5 and 9."""
    gray = GREY.copy()
    save_slices(folder)
    for number in (3, 8):
        color = RNG.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(color).save(folder / f"{number}.png")
        # ITU-R 601-2, in integers as PIL computes it
        weights = np.array([19595, 38470, 7471])
        gray[number] = (color.astype(np.int64) @ weights + 0x8000) >> 16
    Image.fromarray(np.dstack([GREY[4], np.full_like(GREY[4], 7)])).save(folder / "4.png")
    return gray, np.delete(gray, [5, 9], axis=0)


def test_colored_slices_are_converted_where_it_is_asked_for(tmp_path):
    gray, _ = save_colored(tmp_path / "a")
    with pytest.raises(VolumeShapeError, match=r"3.png is in color.*gray_slices"):
        LoadVolume()(tmp_path / "a")
    volume = LoadVolume(gray_slices=True)(tmp_path / "a")
    assert np.array_equal(volume.numpy()[0].T, gray)
    assert "3 of 12 slices were in color or transparent and were converted to gray" in volume.meta["notes"]


def test_slices_of_another_size_are_left_out_where_it_is_asked_for(tmp_path):
    _, usual = save_colored(tmp_path / "a")
    for number, size in ((5, (4, 4)), (9, (WIDTH, HEIGHT + 1))):
        Image.new("L", size).save(tmp_path / "a" / f"{number}.png")
    with pytest.raises(SliceGeometryError, match=r"5.png has 4 x 4.*drop_odd_slices"):
        LoadVolume(gray_slices=True)(tmp_path / "a")
    volume = LoadVolume(gray_slices=True, drop_odd_slices=True)(tmp_path / "a")
    assert np.array_equal(volume.numpy()[0].T, usual)
    (note,) = [one for one in volume.meta["notes"] if "left out" in one]
    assert note.startswith(
        "2 of 12 slices were left out, since they have not the 5 x 6 pixels of the others but 4 x 4, 5"
    )


def test_whole_gray_folders_are_read_as_without_the_settings(tmp_path):
    plain = LoadVolume()(save_slices(tmp_path / "a"))
    lenient = LoadVolume(gray_slices=True, drop_odd_slices=True)(tmp_path / "a")
    assert np.array_equal(plain.numpy(), lenient.numpy())
    assert plain.meta["notes"] == lenient.meta["notes"]


def test_damaged_slices_are_refused_in_any_case(tmp_path):
    save_slices(tmp_path / "a")
    (tmp_path / "a" / "7.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableVolumeError, match=r"7.png"):
        LoadVolume(gray_slices=True, drop_odd_slices=True)(tmp_path / "a")
