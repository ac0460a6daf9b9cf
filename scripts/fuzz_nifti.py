# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Read mutated NIfTI files: ``fuzz_nifti.py [--count 1000] [--seed 0]``.

Each mutant is a small volume with one to four rare or wrong values in its header, extensions, a damaged gzip stream, or
fewer or more bytes than its header asks for. It is read with nibabel's voxels at nibabel's place, or with a note that
says why elsewhere, or refused by an error of this package; anything else is a finding, and the exit status is 1:
another error, more memory or time than the limits, a silent change. A mutant is made again by its seed: the seed of the
run plus its number.
"""

from __future__ import annotations

import gzip
import logging
import random
import resource
import signal
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fuzzing
import nibabel as nib
import numpy as np

from monai_medpruner.errors import MedPrunerError
from monai_medpruner.transforms import CheckVolume, LoadVolume

SECONDS = 10.0
MEMORY_BYTES = 1 << 30
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
NUMBERS = (0.0, 1.0, -1.0, 0.5, -0.7, 2.0, 1e-30, 1e30, float("nan"), float("inf"))
CODES = (0, 1, 2, 4, 5, 6, 200, -1)
#: fields of the header, and values that are rare, or wrong
VALUES: dict[str, tuple[Any, ...]] = {
    "sizeof_hdr": (0, 348, 540, 1543569408, -1),
    "datatype": (0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 9999, -1),
    "bitpix": (0, 1, 8, 16, 32, 64, 128),
    "scl_slope": (*NUMBERS, -2.0, 1e-3),
    "scl_inter": (*NUMBERS, -1024.0),
    "sform_code": CODES,
    "qform_code": CODES,
    "quatern_b": NUMBERS,
    "quatern_c": NUMBERS,
    "quatern_d": NUMBERS,
    "qoffset_x": NUMBERS,
    "qoffset_z": NUMBERS,
    "srow_x": NUMBERS,
    "srow_z": NUMBERS,
    "xyzt_units": (0, 1, 2, 3, 8, 9, 10, 11, 16, 64, 255),
    "vox_offset": (0, 1, 112, 348, 351, 352, 353, 368, 400, 544, 1e6, -352, float("nan"), float("inf")),
    "magic": (b"n+1", b"ni1", b"n+2", b"n+2\0\r\n\032\n", b"", b"N+1", b"n+1\1"),
    "intent_code": (0, 3, 5, 1002, 1005, 1007, 2003, -1),
    "dim_info": (0, 57, 255),
    "slice_code": (0, 1, 6, 255),
    "cal_max": NUMBERS,
    "toffset": NUMBERS,
}
#: fields that are arrays, of which one entry is changed
ENTRIES: dict[str, tuple[Any, ...]] = {
    "dim": (0, 1, 2, 3, 4, 5, 6, 7, 8, -1, 600, 32767),
    "pixdim": (*NUMBERS, -2.0, -0.0),
}


class HangError(Exception):
    """A file took longer than the limit."""


def base(rng: random.Random) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Return header and voxels of a volume in one of the common layouts: oblique, mirrored, with one or two forms."""
    kind = rng.choice([nib.Nifti1Header, nib.Nifti1Header, nib.Nifti2Header])
    header = kind(endianness=rng.choice("<<>"))
    dtype = np.dtype(rng.choice(DTYPES)).newbyteorder(header.endianness)
    shape = [rng.randrange(2, 9) for _ in range(3)]
    generator = np.random.default_rng(rng.randrange(1 << 30))
    voxels = generator.integers(0, 120, shape).astype(dtype)
    header.set_data_dtype(dtype)
    header.set_data_shape([*shape, *rng.choice([[], [], [], [1], [1, 1], [1, 1, 1, 1]])])
    affine = np.eye(4)
    directions = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    affine[:3, :3] = directions * generator.uniform(0.3, 6, 3)
    affine[:3, 3] = generator.uniform(-200, 200, 3)
    forms = rng.choice(["s", "s", "q", "sq", ""])
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    if "q" in forms:
        header.set_qform(affine, rng.randrange(1, 5))
    if "s" in forms:
        header.set_sform(affine, rng.randrange(1, 5))
    header["xyzt_units"] = rng.choice([0, 2, 10])
    header["magic"] = header.single_magic
    header["vox_offset"] = header.sizeof_hdr + 4
    return header, voxels


def content(header: nib.Nifti1Header, voxels: np.ndarray, extension: bytes = bytes(4)) -> bytes:
    """Return the bytes of a file."""
    return header.binaryblock + extension + voxels.tobytes("F")


def header_mutant(rng: random.Random) -> bytes:
    """One to four fields of the header."""
    header, voxels = base(rng)
    for name in rng.sample(sorted({**VALUES, **ENTRIES}), rng.choice([1, 1, 1, 2, 3, 4])):
        if name in ENTRIES:
            first = 0 if rng.random() < 0.3 else 1
            header[name][rng.randrange(first, 8 if first == 0 else 5)] = rng.choice(ENTRIES[name])
        elif header[name].ndim:
            header[name][rng.choice([slice(None), *range(header[name].size)])] = rng.choice(VALUES[name])
        else:
            _set(header, name, rng.choice(VALUES[name]))
    return content(header, voxels)


def _set(header: nib.Nifti1Header, name: str, value: Any) -> None:
    """Set a field as its type allows: whole numbers wrap around."""
    dtype = header[name].dtype
    if dtype.kind in "iu":
        if not np.isfinite(value):
            return
        bits = 8 * dtype.itemsize
        value = int(value) % (1 << bits)
        value = value - (1 << bits) if dtype.kind == "i" and value >= 1 << (bits - 1) else value
    header[name] = value


def form_mutant(rng: random.Random) -> bytes:
    """Forms that disagree, are degenerate, sheared, mirrored, in other units, or of unusual codes."""
    header, voxels = base(rng)
    affine = np.array(header.get_best_affine())
    kind = rng.choice(["zero", "shear", "mirror", "shift", "parallel", "units", "quaternion", "sign", "codes"])
    axis, other = rng.sample(range(3), 2)
    if kind == "zero":
        affine[rng.choice([slice(0, 3), axis])] = 0
    elif kind == "shear":
        affine[:3, axis] += rng.choice([1e-4, 0.01, 0.1, 0.5]) * affine[:3, other]
    elif kind == "mirror":
        affine[:, axis] *= -1
    elif kind == "shift":
        affine[:3, 3] += rng.choice([1e-3, 0.2, 5.0, 1e4])
    elif kind == "parallel":
        affine[:3, axis] = affine[:3, other]
    elif kind == "units":
        header["xyzt_units"] = rng.choice([1, 3])
        affine[:3] *= rng.choice([1.0, 1e-3, 1e3])
    elif kind == "quaternion":
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = (rng.choice(NUMBERS[:6]) for _ in range(3))
    elif kind == "sign":
        header["pixdim"][0] = rng.choice([0, 2, -2, 0.5, -0.0, float("nan")])
    else:
        header["sform_code"], header["qform_code"] = rng.choice(CODES), rng.choice(CODES)
    if kind not in ("quaternion", "sign", "codes") and rng.random() < 0.8:
        header.set_sform(affine, 1)
    return content(header, voxels)


def extension_mutant(rng: random.Random) -> bytes:
    """Extensions whose sizes are right or wrong, and a place of the voxels that leaves room for them or not."""
    header, voxels = base(rng)
    size = rng.choice([16, 16, 32, 48, 0, 8, 17, -16, 1 << 30])
    length = min(max(size - 8, 0), 64)
    order = header.endianness
    extension = bytes([rng.choice([1, 1, 1, 2, 255]), 0, 0, 0])
    extension += np.array([size, rng.choice([0, 2, 4, 6, -1])], f"{order}i4").tobytes() + b"x" * length
    header["vox_offset"] = header.sizeof_hdr + len(extension) + rng.choice([0, 0, 0, 16, -8])
    return content(header, voxels, extension)


def pixel_mutant(rng: random.Random) -> bytes:
    """A file that is cut, goes on, or has changed bytes."""
    plain = content(*base(rng))
    kind = rng.choice(["cut", "cut", "long", "flip"])
    if kind == "cut":
        return plain[: rng.randrange(len(plain))]
    if kind == "long":
        return plain + bytes(rng.choice([1, 8, 512, 10_000]))
    damaged = bytearray(plain)
    for _ in range(rng.randrange(1, 6)):
        damaged[rng.randrange(352)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(damaged)


def gzip_mutant(rng: random.Random) -> bytes:
    """A stream that is cut, damaged, of several members, or followed by something else."""
    plain = content(*base(rng))
    stream = gzip.compress(plain, rng.choice([0, 1, 9]), mtime=0)
    kind = rng.choice(["cut", "flip", "members", "zeros", "garbage", "empty member", "half a member", "bomb", "plain"])
    if kind == "cut":
        return stream[: rng.randrange(2, len(stream))]
    if kind == "flip":
        damaged = bytearray(stream)
        damaged[rng.randrange(2, len(stream))] ^= 1 << rng.randrange(8)
        return bytes(damaged)
    if kind == "members":
        place = rng.randrange(len(plain))
        return gzip.compress(plain[:place], mtime=0) + gzip.compress(plain[place:], mtime=0)
    after = {
        "zeros": bytes(rng.choice([1, 512])),
        "garbage": rng.choice([b"x", b"\x1f", b"more of something else"]),
        "empty member": gzip.compress(b"", mtime=0),
        "half a member": stream[: len(stream) // 2],
        "bomb": gzip.compress(bytes(20_000_000), mtime=0),
        "plain": b"",
    }
    return stream + after[kind]


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    header_mutant,
    header_mutant,
    header_mutant,
    form_mutant,
    form_mutant,
    extension_mutant,
    pixel_mutant,
    gzip_mutant,
)


def mutant(seed: int) -> tuple[str, str, bytes]:
    """Return kind, file name and content of the mutant of a seed."""
    rng = random.Random(seed)
    make = rng.choice(KINDS)
    made = make(rng)
    compressed = make is gzip_mutant
    if not compressed and rng.random() < 0.3:
        made, compressed = gzip.compress(made, 1, mtime=0), True
    name = rng.choices(["v.nii.gz" if compressed else "v.nii", "v.nii", "v.img", "v.hdr"], [97, 1, 1, 1])[0]
    return make.__name__, name, made


def write(seed: int, folder: Path) -> tuple[str, Path]:
    """Write the mutant of a seed; return its kind and its file."""
    kind, name, made = mutant(seed)
    (folder / name).write_bytes(made)
    return kind, folder / name


@contextmanager
def limits() -> Iterator[None]:
    """Limit time and memory of the reading of a file, by exceptions that are findings."""

    def hang(*_: object) -> None:
        raise HangError(f"more than {SECONDS:g} seconds")

    before, (soft, hard) = signal.signal(signal.SIGALRM, hang), resource.getrlimit(resource.RLIMIT_AS)
    used = 0
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def expected(path: Path, offset: int | None = None) -> tuple[np.ndarray, np.ndarray, nib.Nifti1Header] | None:
    """Return voxels, affine and raw header as nibabel has them; None where it cannot tell.

    Args:
        path: a mutant.
        offset: where the voxels begin, if the reader noted that the header does not say so.
    """
    try:
        plain = bytearray(inflated(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes())
        image, kind = next(
            (image, image.header_class)
            for image in (nib.Nifti2Image, nib.Nifti1Image)
            if image.header_class.may_contain_header(plain)
        )
        raw = kind(bytes(plain[: kind.sizeof_hdr]), check=False)
        if offset is not None:
            raw["vox_offset"] = offset
            plain[: kind.sizeof_hdr] = raw.binaryblock
        plain[kind.sizeof_hdr : kind.sizeof_hdr + 4] = bytes(4)  # nibabel need not understand the extensions
        read = image.from_bytes(bytes(plain))
        return np.asarray(read.get_fdata()), np.array(read.affine), raw
    except Exception:  # a mutant may meet any fault of nibabel, or of gzip after the voxels
        return None


def inflated(stream: bytes) -> bytes:
    """Return what the members of a gzip stream hold, up to something else."""
    plain = b""
    while stream[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        plain += member.decompress(stream, 1_000_000)
        if not member.eof:
            break
        stream = member.unused_data
    return plain


def forms(raw: nib.Nifti1Header) -> list[np.ndarray]:
    """Return the sform and the qform of a header by their definition in nifti1.h."""
    sform, qform = np.eye(4), np.eye(4)
    sform[:3] = [raw["srow_x"], raw["srow_y"], raw["srow_z"]]
    b, c, d = (float(raw[f"quatern_{name}"]) for name in "bcd")
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * b * c - 2 * a * d, 2 * b * d + 2 * a * c],
            [2 * b * c + 2 * a * d, a * a + c * c - b * b - d * d, 2 * c * d - 2 * a * b],
            [2 * b * d - 2 * a * c, 2 * c * d + 2 * a * b, a * a + d * d - c * c - b * b],
        ]
    )
    sizes = np.array(raw["pixdim"][1:4], dtype=np.float64) * [1, 1, -1 if raw["pixdim"][0] < 0 else 1]
    qform[:3, :3] = rotation * sizes
    qform[:3, 3] = [float(raw[f"qoffset_{name}"]) for name in "xyz"]
    return [sform, qform]


def outcome(path: Path) -> str:
    """Return what became of a mutant; a text that begins with FINDING if it is wrong."""
    try:
        with limits():
            image = CheckVolume()(LoadVolume()(path))
    except MedPrunerError as error:
        return f"refused: {type(error).__name__}"
    except BaseException as error:  # the finding
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{fuzzing.FINDING}: {type(error).__name__}: {error}"
    notes = " ".join(image.meta["notes"])
    offset = int(notes.split("read from byte ")[1].split()[0].rstrip(";.")) if "read from byte" in notes else None
    found = expected(path, offset)
    if found is None:
        return "read, unknown to nibabel"
    voxels, affine, raw = found
    with np.errstate(all="ignore"):
        voxels = voxels.reshape(voxels.shape[:3]).astype(np.float32)
        if voxels.shape != image.shape[1:] or not np.allclose(image[0].numpy(), voxels, 1e-6, 0, equal_nan=True):
            return f"{fuzzing.FINDING}: voxels differ from nibabel's"
        places = [affine, *(forms(raw) if notes else [])]
        factors = (1.0, 1000.0, 0.001) if "converted to mm" in notes else (1.0,)
        known = [np.vstack([factor * place[:3], place[3:]]) for place in places for factor in factors]
        if not any(np.allclose(image.affine.numpy(), place, rtol=1e-4, atol=1e-4) for place in known):
            return f"{fuzzing.FINDING}: the affine differs from nibabel's"
    return "read, with a note" if notes else "read"


def run(seeds: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Read the mutants of some seeds and print findings; return kind and outcome of each."""
    log = logging.getLogger("nibabel.global")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        return fuzzing.judge(seeds, write, outcome)
    finally:
        log.setLevel(level)


if __name__ == "__main__":
    fuzzing.main(__doc__, run)
