# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Headers and pixels of many DICOM files, decoded in another process or in this one.

Whatever happens to the decoder, one volume fails with an :py:class:`UnreadableVolumeError` that names the file and the
cause, and the next volume is read by a new process.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from monai_medpruner.data import dicom_decoder
from monai_medpruner.data.decoder_process import DecoderProcessError, borrow_decoder
from monai_medpruner.data.dicom_elements import ElementError, read_stored_pixels
from monai_medpruner.errors import SettingsError, UnreadableVolumeError

__all__ = ["DicomDecoding", "StoredSlice", "decode_headers", "decode_pixels"]

#: bytes that the decoder may take for each voxel of a file of several frames: read, decompressed, rescaled, returned
_FRAME_VOXEL_BYTES = 24
#: frames that may take as long as a file
_FRAMES_AS_A_FILE = 100


@dataclass(frozen=True)
class StoredSlice:
    """Where a slice is stored.

    Attributes:
        path: the file.
        inverted_sum: for MONOCHROME1, the sum of a stored value and its inversion by GDCM; otherwise None.
        frame: index of the frame, from 0; None for a file that is one slice, which the decoder rescales itself.
        rescale: RescaleSlope and RescaleIntercept of a frame.
        frames: number of frames of the file.
    """

    path: Path
    inverted_sum: int | None = None
    frame: int | None = None
    rescale: tuple[float, float] = (1.0, 0.0)
    frames: int = 1


@dataclass(frozen=True)
class DicomDecoding:
    """Where DICOM files are decoded, and within what limits.

    Args:
        separate: decode in another process, which a damaged or hostile file may abort, block or fill. False: in this
            process, where such a file may end it, and without the limits.
        file_seconds: longest time for one file, and for each 100 frames of it.
        series_seconds: longest time for the headers of a folder, and for the pixels of a series.
        memory_gib: memory in GiB that decoding may take besides the volume.

    The environment variables ``MEDPRUNER_DICOM_SEPARATE`` (1 or 0), ``MEDPRUNER_DICOM_FILE_SECONDS``,
    ``MEDPRUNER_DICOM_SERIES_SECONDS`` and ``MEDPRUNER_DICOM_MEMORY_GIB`` set other defaults where a reader is given
    none. They are no settings of a bundle: those are part of a study's key and of every record, and how a file is
    decoded does not change the volume.

    Raises:
        SettingsError: if a value is not valid.
    """

    separate: bool = True
    file_seconds: float = 60.0
    series_seconds: float = 900.0
    memory_gib: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.separate, bool):
            raise SettingsError(f"separate must be true or false, got {self.separate!r}")
        for name in (i.name for i in fields(self) if i.name != "separate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise SettingsError(f"{name} must be a positive number, got {value!r}")

    @classmethod
    def from_environment(cls) -> DicomDecoding:
        """Return the defaults, as far as environment variables do not set others.

        Raises:
            SettingsError: if a variable has a value that is not valid.
        """
        values: dict[str, Any] = {}
        for name in (i.name for i in fields(cls)):
            variable = f"MEDPRUNER_DICOM_{name.upper()}"
            if (text := os.environ.get(variable, "")) == "":
                continue
            try:
                values[name] = {"0": False, "1": True}[text] if name == "separate" else float(text)
            except (KeyError, ValueError):
                kind = "0 or 1" if name == "separate" else "a number"
                raise SettingsError(f"the environment variable {variable} must be {kind}, got {text!r}") from None
        return cls(**values)


def decode_headers(paths: Sequence[Path], tags: Sequence[str], decoding: DicomDecoding) -> list[dict[str, Any]]:
    """Read the headers of files.

    Args:
        paths: any files.
        tags: DICOM tags to return, such as ``"0028|0010"``.
        decoding: where, and within what limits.

    Returns:
        one dictionary per file; see :py:func:`monai_medpruner.data.dicom_decoder.read_header`.

    Raises:
        UnreadableVolumeError: if the decoder fails in another way than by an error that it reports itself.
    """
    if not paths:
        return []
    if not decoding.separate:
        return [dicom_decoder.read_header(str(path), tags) for path in paths]
    request = {"headers": [os.path.abspath(path) for path in paths], "tags": list(tags)}
    return _ask(request, paths, decoding)


def decode_pixels(slices: Sequence[StoredSlice], shape: tuple[int, int], decoding: DicomDecoding) -> np.ndarray:
    """Decode the pixels of slices.

    Args:
        slices: where each slice is stored.
        shape: numbers of rows and columns of every slice.
        decoding: where, and within what limits.

    Returns:
        (slices, rows, columns) float32: stored values times RescaleSlope plus RescaleIntercept.

    Raises:
        UnreadableVolumeError: if a file cannot be decoded, or no memory or disk is left for the pixels.
    """
    places: dict[Path, list[int]] = defaultdict(list)
    for place, stored in enumerate(slices):
        places[stored.path].append(place)
    requests = [_file_request(path, [(i, slices[i]) for i in own]) for path, own in places.items()]
    if not decoding.separate:
        volume = np.empty((len(slices), *shape), np.float32)
        for path, one in zip(places, requests, strict=True):
            _require(path, {"fault": dicom_decoder.read_file(one, volume)}, decoding)
        return volume
    size = 4 * len(slices) * math.prod(shape)
    frames = max(stored.frames for stored in slices)
    # all frames of a file are decoded at once
    memory_bytes = size + (_FRAME_VOXEL_BYTES * frames * math.prod(shape) if frames > 1 else 0)
    with _target(size) as (file, name):
        request = {"pixels": requests, "shape": (len(slices), *shape), "target": name}
        _ask(request, list(places), decoding, memory_bytes, 1 + frames // _FRAMES_AS_A_FILE)
        return _load(file, name, size).reshape(len(slices), *shape)


def _file_request(path: Path, own: Sequence[tuple[int, StoredSlice]]) -> dict[str, Any]:
    """What the decoder needs to know of a file: see :py:func:`monai_medpruner.data.dicom_decoder.read_file`."""
    first_place, first = own[0]
    request = {"path": os.path.abspath(path), "inverted_sum": first.inverted_sum, "place": first_place}
    if first.frame is None:
        return request
    return {**request, "frames": [(one.frame, place, *one.rescale) for place, one in own]}


def _ask(
    request: dict[str, Any], paths: Sequence[Path], decoding: DicomDecoding, memory_bytes: int = 0, times: int = 1
) -> list[dict[str, Any]]:
    """Return the reply for each file, or raise an error that names the file.

    ``memory_bytes``, and ``times`` the seconds for a file, are what the size of the request asks for.
    """
    replies: list[dict[str, Any]] = []
    memory_bytes += int(decoding.memory_gib * 2**30)
    seconds = min(times * decoding.file_seconds, max(decoding.file_seconds, decoding.series_seconds))
    try:
        with borrow_decoder() as decoder:
            for reply in decoder.ask(request, len(paths), seconds, decoding.series_seconds, memory_bytes):
                replies.append(reply)
    except DecoderProcessError as error:
        path = paths[len(replies)]
        raise UnreadableVolumeError(f"{path.name}: {error}{_suspect(path)}") from error
    _require(paths[len(replies) - 1], replies[-1], decoding)
    return replies


def _suspect(path: Path) -> str:
    """Return what in a file that ended the decoder is known to do so."""
    try:
        stored = read_stored_pixels(path)
    except (ElementError, OSError):
        return ""
    color = stored.photometric_interpretation == "PALETTE COLOR"
    return ". Its pixels are stored as PALETTE COLOR; are its color tables missing?" if color else ""


def _require(path: Path, reply: dict[str, Any], decoding: DicomDecoding) -> None:
    if reply.get("memory"):
        raise UnreadableVolumeError(
            f"{path.name}: decoding it needs more than {decoding.memory_gib:g} GiB of memory besides the volume. If "
            "its images are not that large, the file is damaged."
        )
    if reply.get("fault"):
        raise UnreadableVolumeError(f"{path.name}: {reply['fault']}")


@contextmanager
def _target(size: int) -> Iterator[tuple[int, str]]:
    """Yield a file of ``size`` bytes as descriptor and as a name under which another process can open it.

    On Linux it lies in memory and has no name in any folder: voxels do not reach a disk, and the size of ``/dev/shm``,
    small in containers, does not matter.
    """
    in_memory = sys.platform == "linux" and os.access("/proc/self/fd", os.R_OK)
    try:
        if in_memory:
            file = os.memfd_create("voxels")
            name = f"/proc/{os.getpid()}/fd/{file}"
            os.ftruncate(file, size)
        else:
            file, name = _temporary_file(size)
    except OSError as error:
        raise UnreadableVolumeError(f"no room for {size / 2**30:.1f} GiB of pixels: {error.strerror}") from error
    try:
        yield file, name
    finally:
        os.close(file)
        if not in_memory:
            os.unlink(name)


def _temporary_file(size: int) -> tuple[int, str]:
    """Return descriptor and path of a new file in the first folder for temporary files that has room."""
    folders = [tempfile.gettempdir(), os.path.join(os.sep, "var", "tmp"), os.getcwd()]
    for folder in folders:
        if os.path.isdir(folder) and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > size:
            file, name = tempfile.mkstemp(prefix="medpruner_", dir=folder)
            os.ftruncate(file, size)
            return file, name
    raise OSError(
        errno.ENOSPC, f"{' and '.join(folders)} are full; the environment variable TMPDIR names another folder"
    )


def _load(file: int, name: str, size: int) -> np.ndarray:
    """Return the content of a file as float32, mapped where a mapped file can be removed."""
    if os.name == "nt":
        return np.fromfile(name, np.float32)
    # private: a forked process that changes the voxels must not change them here
    mapped = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(mapped, np.float32)
