# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Read mutated DICOM files: ``fuzz_dicom.py [--count 1000] [--seed 0]``.

Each mutant is one file with a rare or wrong value in its header, a damaged pixel stream, or a damaged structure. It is
read with the values that pydicom finds, or refused by an error of this package; anything else is a finding, and the
exit status is 1. Mutants that pydicom cannot decode have nothing to be compared with; they are counted. A mutant is
made again by its seed: the seed of the run plus its number.
"""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import fuzzing
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut

from monai_medpruner.data import VolumeReader
from monai_medpruner.data.dicom_decoding import DicomDecoding
from monai_medpruner.errors import MedPrunerError

ROWS, COLUMNS = 16, 24
#: share of the mutants that end the decoder, for all that is known of it
ENDING = 0.08
VALUES = {
    "PhotometricInterpretation": ["MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "HSV", "ARGB", "CMYK", "", "XXX"],
    "SamplesPerPixel": [0, 2, 3, 4, 65535],
    "PlanarConfiguration": [0, 1, 2],
    "BitsAllocated": [0, 1, 8, 12, 24, 32, 64, 65535],
    "BitsStored": [0, 1, 7, 8, 10, 12, 15, 17, 32],
    "HighBit": [0, 7, 11, 12, 15, 16, 255],
    "PixelRepresentation": [0, 1, 2, 65535],
    "Rows": [0, 1, ROWS - 1, ROWS + 1, 65535],
    "Columns": [0, 1, COLUMNS - 1, COLUMNS + 2, 65535],
    "NumberOfFrames": ["0", "1", "2", "-1", "2147483647", "1.5"],
    "RescaleSlope": ["0", "-1", "0.5", "1e-30", "1e300", "nan", "2\\3", "abc"],
    "RescaleIntercept": ["0", "-1024.5", "1e300", "inf", "abc"],
    "RescaleType": ["HU", "US", "OD"],
    "PixelSpacing": ["0\\0", "-1\\1", "1e300\\1", "1", "a\\b"],
    "ImagePositionPatient": ["0\\0", "nan\\0\\0", "1e300\\0\\0"],
    "ImageOrientationPatient": ["0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0"],
    "SliceThickness": ["-1", "0", "1e300"],
    "PixelPaddingValue": [0, 65535],
    "SmallestImagePixelValue": [0, 65535],
    "SpecificCharacterSet": ["ISO_IR 192", "ISO 2022 IR 87", "\\ISO 2022 IR 149", "XXX"],
    "Modality": ["MR", "PT", "SR", "", "C\\T"],
    "PatientName": ["A" * 5000, "=\\=\\^", "\x1b$B"],
    "PixelAspectRatio": ["1\\2", "0\\0"],
    "LossyImageCompression": ["01"],
}
SYNTAXES = (
    "1",
    "1.1",
    "1.2",
    "1.2.1",
    "1.2.1.99",
    "1.2.2",
    "1.2.4.50",
    "1.2.4.57",
    "1.2.4.70",
    "1.2.4.80",
    "1.2.4.90",
    "1.2.5",
)


def base(rng: random.Random) -> Dataset:
    """Return a CT slice in one of the common layouts, sometimes compressed."""
    signed, bits = rng.choice([(0, 12), (0, 16), (1, 16), (0, 8)])
    values = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 2 ** min(bits, 12), (ROWS, COLUMNS))
    stored = values.astype(np.uint8 if bits == 8 else np.int16 if signed else np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.78"
    dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.77", "CT"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", signed
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.itemsize, bits, bits - 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    if rng.random() < 0.3:
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    return dataset


def encode(dataset: Dataset) -> bytes:
    """Return the bytes of a file."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def ending_mutant(rng: random.Random) -> bytes:
    """A palette without its tables, at which GDCM throws what nobody catches."""
    dataset = base(rng)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    dataset.WindowCenter = str(rng.randrange(1000))
    return encode(dataset)


def header_mutant(rng: random.Random) -> bytes:
    """One to three values that are rare or wrong, or fields that are absent."""
    dataset = base(rng)
    for keyword in rng.sample(sorted(VALUES), rng.choice([1, 1, 1, 2, 3])):
        if rng.random() < 0.15 and keyword in dataset:
            del dataset[keyword]
        else:
            raw(dataset, keyword, rng.choice(VALUES[keyword]))
    return encode(dataset)


def raw(dataset: Dataset, keyword: str, value: int | str) -> None:
    """Set a field to a value that pydicom may not take for valid."""
    tag = pydicom.tag.Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag).split()[0]
    content = value.to_bytes(2, "little") if isinstance(value, int) else value.encode("latin-1")
    content += b" " * (len(content) % 2)
    dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(content), content, 0, False, True)


def syntax_mutant(rng: random.Random) -> bytes:
    """Another transfer syntax than that of the content."""
    content = encode(base(rng))
    syntax = b"1.2.840.10008." + rng.choice(SYNTAXES).encode()
    start = content.index(b"\x02\x00\x10\x00UI") + 8
    length = int.from_bytes(content[start - 2 : start], "little")
    return content[:start] + syntax[:length].ljust(length, b"\0") + content[start + length :]


def table_mutant(rng: random.Random) -> bytes:
    """A lookup table, an overlay, an icon, or an odd palette."""
    dataset = base(rng)
    kind = rng.choice(["modality", "overlay", "icon", "palette", "float"])
    if kind == "modality":
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 16])
        table.add_new("LUTData", "OW", np.arange(4096, dtype=np.uint16)[::-1].tobytes())
        table.ModalityLUTType = "HU"
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.ModalityLUTSequence = [table]
    elif kind == "overlay":
        dataset.add_new(0x60000010, "US", ROWS)
        dataset.add_new(0x60000011, "US", COLUMNS)
        dataset.add_new(0x60000100, "US", rng.choice([1, 16]))
        dataset.add_new(0x60000102, "US", rng.choice([0, 12, 15]))
    elif kind == "icon":
        icon = copy.deepcopy(dataset)
        icon.Rows = rng.choice([0, 1, ROWS, 65535])
        del icon.file_meta
        dataset.IconImageSequence = [icon]
    elif kind == "palette":
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        for color in ("Red", "Green", "Blue"):
            dataset.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", [rng.choice([0, 1, 256, 4096]), 0, 16])
            dataset.add_new(f"{color}PaletteColorLookupTableData", "OW", bytes(rng.choice([0, 2, 512, 8192])))
    else:
        dataset.FloatPixelData = bytes(4 * ROWS * COLUMNS)
        del dataset.PixelData
    return encode(dataset)


def pixel_mutant(rng: random.Random) -> bytes:
    """A pixel element that is shorter, longer, or damaged."""
    dataset = base(rng)
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    pixels = get_frame(dataset.PixelData, 0, number_of_frames=1) if compressed else dataset.PixelData
    kind = rng.choice(["short", "long", "flip", "empty"])
    if kind == "short":
        pixels = pixels[: 2 * rng.randrange(len(pixels) // 2)]
    elif kind == "long":
        pixels += bytes(2 * rng.randrange(1, 100))
    elif kind == "flip":
        damaged = bytearray(pixels)
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(min(len(damaged), rng.choice([90, 10**6])))] = rng.randrange(256)
        pixels = bytes(damaged)
    else:
        pixels = b""
    dataset["PixelData"]._value = encapsulate([pixels or bytes(2)]) if compressed else pixels
    return encode(dataset)


def structure_mutant(rng: random.Random) -> bytes:
    """A file that is cut, or in which bytes of the header, such as lengths, are other ones."""
    content = bytearray(encode(base(rng)))
    kind = rng.choice(["cut", "flip", "repeat", "undefined"])
    header = content.index(b"\xe0\x7f\x10\x00")
    if kind == "cut":
        return bytes(content[: rng.randrange(len(content))])
    if kind == "flip":
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(128, header + 12)] = rng.choice([0, 1, 255, rng.randrange(256)])
    elif kind == "repeat":
        start = content.index(b"\x28\x00", 300)
        content[start:start] = content[start:header][: rng.randrange(8, 60)]
    else:
        start = rng.randrange(132, header)
        content[start : start + 4] = b"\xff\xff\xff\xff"
    return bytes(content)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    header_mutant,
    header_mutant,
    header_mutant,
    syntax_mutant,
    table_mutant,
    pixel_mutant,
    pixel_mutant,
    structure_mutant,
    structure_mutant,
)


def mutant(seed: int) -> tuple[str, bytes]:
    """Return kind and content of the mutant of a seed."""
    rng = random.Random(seed)
    make = ending_mutant if rng.random() < ENDING else rng.choice(KINDS)
    return make.__name__, make(rng)


def expected(path: Path) -> np.ndarray | None:
    """Return the values that pydicom finds, (rows, columns); None where it cannot tell."""
    try:
        dataset = pydicom.dcmread(path)
        if "RescaleIntercept" in dataset and "RescaleSlope" not in dataset:
            dataset.RescaleSlope = 1  # pydicom would rescale by neither; the reader notes what it takes as 1
        if "RescaleSlope" in dataset and "RescaleIntercept" not in dataset:
            dataset.RescaleIntercept = 0
        values = np.asarray(apply_modality_lut(dataset.pixel_array, dataset), dtype=np.float64)
        # bytes beyond the first frame are no frames, unless NumberOfFrames says so
        return values[0] if values.ndim == 3 and int(dataset.get("NumberOfFrames", None) or 1) == 1 else values
    except Exception:  # a mutant may meet any fault of pydicom
        return None


def outcome(path: Path, reader: VolumeReader) -> str:
    """Return what became of a mutant; a text that begins with FINDING if it is wrong."""
    try:
        voxels = reader.read(path).voxels[..., 0].T
    except MedPrunerError as error:
        text = str(error)
        if "ended with SIG" in text or "was killed" in text or "took longer" in text or "ended unexpectedly" in text:
            return "ended the decoder"
        if "could not be started" in text or "cannot be started" in text:
            return f"FINDING: {text}"
        return "refused"
    except Exception as error:  # the finding
        return f"FINDING: {type(error).__name__}: {error}"
    values = expected(path)
    if values is None:
        return "read, unknown to pydicom"
    with np.errstate(over="ignore"):
        same = values.shape == voxels.shape and np.allclose(
            voxels, values.astype(np.float32), 1e-5, 1e-3, equal_nan=True
        )
    return "read" if same else "FINDING: values differ from pydicom's"


def write(seed: int, folder: Path) -> tuple[str, Path]:
    """Write the mutant of a seed; return its kind and its file."""
    kind, content = mutant(seed)
    path = folder / "mutant.dcm"
    path.write_bytes(content)
    return kind, path


def run(seeds: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Read the mutants of some seeds and print findings; return kind and outcome of each."""
    reader = VolumeReader(decoding=DicomDecoding(file_seconds=10, series_seconds=20, memory_gib=1))
    return fuzzing.judge(seeds, write, lambda path: outcome(path, reader))


if __name__ == "__main__":
    fuzzing.main(__doc__, run)
