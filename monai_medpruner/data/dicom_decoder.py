# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Decoding single DICOM files with ITK; also the program of the decoder process.

:py:mod:`monai_medpruner.data.decoder_process` runs this file by its path. It imports nothing of this package, so that a
new process is ready as soon as ITK is loaded, and a fault of the decoder ends that process alone.

The program reads requests from its standard input and writes replies to its standard output. Each message is JSON,
preceded by its length in bytes (4 bytes, little endian). The first reply is ``{"ready": true}``; so is the
reply to ``{"ping": true}``. A request for headers or pixels is followed by one reply for each file, in order; one that
has ``fault`` or ``memory`` is the last. The pixels themselves are written to a mapped file. The program ends at the end
of its input, that is, with the process that started it.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose modules must not be found under a top-level name

import contextlib
import importlib
import json
import mmap
import os
import signal
import struct
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

__all__ = ["read_file", "read_frames", "read_header", "read_message", "read_pixels", "write_message"]

#: longest text of a header field that is passed on; longer ones are no valid values of the fields read here
_MAX_TEXT = 16_384
#: longest message
_MAX_MESSAGE = 1 << 28
_LENGTH = struct.Struct("<I")
_UNDECODABLE = "its DICOM pixels cannot be decoded"
#: how far a stored value may be from a whole number when its rescaling is undone
_WHOLE = 0.01


def read_header(path: str, tags: Sequence[str]) -> dict[str, Any]:
    """Read the header of one file.

    Args:
        path: any file.
        tags: DICOM tags to return, such as ``"0028|0010"``.

    Returns:
        ``image``, whether the file is a DICOM image that can be read; if so, ``sizes`` (columns, rows, and further
        ones), ``components`` (values per pixel) and ``tags`` (tag -> text, absent ones left out); otherwise ``error``,
        GDCM's message, or None if it does not take the file for DICOM.
    """
    io = _itk().GDCMImageIO.New()
    io.SetFileName(path)
    try:
        if not io.CanReadFile(path):
            return {"image": False, "error": None}
        io.ReadImageInformation()
    except RuntimeError as error:  # GDCM's error for a damaged header
        if _is_allocation_failure(error):
            raise MemoryError from error
        return {"image": False, "error": str(error)}
    dictionary = io.GetMetaDataDictionary()
    return {
        "image": True,
        "sizes": [int(io.GetDimensions(i)) for i in range(io.GetNumberOfDimensions())],
        "components": int(io.GetNumberOfComponents()),
        "tags": {tag: str(dictionary[tag])[:_MAX_TEXT] for tag in tags if dictionary.HasKey(tag)},
    }


def read_pixels(path: str, inverted_sum: int | None, pixels: np.ndarray) -> str | None:
    """Decode the pixels of one file.

    Args:
        path: a file for which :py:func:`read_header` found an image.
        inverted_sum: for MONOCHROME1, the sum of a stored value and its inversion by GDCM; otherwise None.
        pixels: (rows, columns) float32; receives the stored values times RescaleSlope plus RescaleIntercept.

    Returns:
        None, or what is wrong with the file.
    """
    io, decoded = _decode(path, exact=False)
    if decoded is None:
        return _UNDECODABLE
    decoded = decoded[0]
    if decoded.shape != pixels.shape:
        return f"it decodes to {decoded.shape} pixels, but its header states {pixels.shape}"
    if inverted_sum is None:
        pixels[...] = decoded
    else:
        # GDCM inverts the stored values of MONOCHROME1 before rescaling, which would invert HU: undo it
        slope, intercept = io.GetRescaleSlope(), io.GetRescaleIntercept()
        pixels[...] = slope * inverted_sum + 2 * intercept - decoded.astype(np.float64)
    return None


def read_frames(
    path: str, inverted_sum: int | None, frames: Sequence[tuple[int, int, float, float]], volume: np.ndarray
) -> str | None:
    """Decode frames of one file, each with its own rescaling.

    GDCM rescales all frames by the first one's values, which is undone: stored values are whole numbers.

    Args:
        path: a file for which :py:func:`read_header` found an image.
        inverted_sum: see :py:func:`read_pixels`.
        frames: for each frame its index in the file, its index in ``volume``, RescaleSlope and RescaleIntercept.
        volume: (slices, rows, columns) float32; receives the frames.

    Returns:
        None, or what is wrong with the file.
    """
    io, decoded = _decode(path, exact=True)
    if decoded is None:
        return _UNDECODABLE
    applied = (io.GetRescaleSlope(), io.GetRescaleIntercept())
    if not applied[0]:
        return "RescaleSlope of its first frame is 0"
    for frame, place, slope, intercept in frames:
        if frame >= len(decoded) or decoded[frame].shape != volume[place].shape:
            return f"it decodes to {decoded.shape} pixels, but its header states {volume.shape[1:]} and more frames"
        if inverted_sum is None and decoded.dtype == np.float32 and applied == (slope, intercept):
            volume[place] = decoded[frame]  # whole numbers, without rounding
            continue
        values = (decoded[frame].astype(np.float64) - applied[1]) / applied[0]
        stored = np.rint(values)
        if not np.all(np.abs(values - stored) < _WHOLE):  # also where they are not finite
            return "the rescaling of its frames cannot be told from its pixels"
        if inverted_sum is not None:
            stored = inverted_sum - stored
        volume[place] = stored * slope + intercept
    return None


def read_file(request: dict[str, Any], volume: np.ndarray) -> str | None:
    """Decode one file of a request into the volume.

    Args:
        request: ``path``, ``inverted_sum`` and ``place``, the index of the slice in the volume; or, instead of the
            latter, ``frames`` of a file of several frames: see :py:func:`read_frames`.
        volume: (slices, rows, columns) float32.

    Returns:
        None, or what is wrong with the file.
    """
    if "frames" in request:
        return read_frames(request["path"], request["inverted_sum"], request["frames"], volume)
    return read_pixels(request["path"], request["inverted_sum"], volume[request["place"]])


def _decode(path: str, exact: bool) -> tuple[Any, np.ndarray | None]:
    """The reader of a file, and its voxels (frames, rows, columns); None if they are damaged.

    The voxels are float32, or float64 where ``exact`` and float32 does not hold them without rounding.
    """
    itk = _itk()
    io = itk.GDCMImageIO.New()
    io.SetFileName(path)
    component = itk.F
    try:
        if exact:
            io.ReadImageInformation()
            slope, intercept = io.GetRescaleSlope(), io.GetRescaleIntercept()
            whole = slope.is_integer() and intercept.is_integer() and abs(slope) * 2**16 + abs(intercept) < 2**24
            small = [getattr(itk.CommonEnums, f"IOComponent_{i}") for i in ("UCHAR", "CHAR", "USHORT", "SHORT")]
            component = itk.F if whole and io.GetInternalComponentType() in small else itk.D
        reader = itk.ImageFileReader[itk.Image[component, 3]].New()
        reader.SetImageIO(io)
        reader.SetFileName(path)
        reader.Update()
    except RuntimeError as error:
        if _is_allocation_failure(error):
            raise MemoryError from error
        return io, None
    return io, itk.array_view_from_image(reader.GetOutput())


def _itk() -> Any:
    """Return ITK, which takes seconds to load and which the parent need not load."""
    return importlib.import_module("itk")


def _is_allocation_failure(error: RuntimeError) -> bool:
    return any(i in str(error) for i in ("bad_alloc", "allocate memory", "Failed to allocate"))


def read_message(stream: IO[bytes]) -> Any | None:
    """Read one message; None at the end of the stream.

    Raises:
        ValueError: if the message is not valid.
    """
    prefix = _read_exactly(stream, _LENGTH.size)
    if prefix is None:
        return None
    (length,) = _LENGTH.unpack(prefix)
    if length > _MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    content = _read_exactly(stream, length)
    return None if content is None else json.loads(content)


def write_message(stream: IO[bytes], message: Any) -> None:
    """Write one message to an unbuffered stream."""
    content = json.dumps(message).encode("ascii")
    rest = memoryview(_LENGTH.pack(len(content)) + content)
    while rest:
        rest = rest[stream.write(rest) :]


def _read_exactly(stream: IO[bytes], count: int) -> bytes | None:
    """Return ``count`` bytes of an unbuffered stream; None if it ends before."""
    parts = bytearray()
    while len(parts) < count:
        part = stream.read(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _serve() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    if hasattr(signal, "SIGALRM"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no reply
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold patient data
    itk_config: Any = importlib.import_module("itkConfig")
    itk_config.DefaultFactoryLoading = False  # ITK's other file formats
    itk = _itk()
    itk.ImageFileReader[itk.Image[itk.F, 3]].New(ImageIO=itk.GDCMImageIO.New())  # loads the library
    write_message(replies, {"ready": True})
    while (request := read_message(requests)) is not None:
        if "ping" in request:
            write_message(replies, {"ready": True})
            continue
        _limit_memory(request["memory_bytes"])
        if "pixels" in request:
            _serve_pixels(request, replies)
        else:
            for path in request["headers"]:
                _start_alarm(request["seconds"])
                try:
                    reply = read_header(path, request["tags"])
                except MemoryError:
                    reply = {"memory": True}
                write_message(replies, reply)
                if "memory" in reply:
                    break
        _start_alarm(0)


def _serve_pixels(request: dict[str, Any], replies: IO[bytes]) -> None:
    count, rows, columns = request["shape"]
    with open(request["target"], "r+b") as file:
        mapped = mmap.mmap(file.fileno(), count * rows * columns * 4)
    volume = np.frombuffer(mapped, np.float32).reshape(count, rows, columns)
    for file in request["pixels"]:
        _start_alarm(request["seconds"])
        try:
            fault = read_file(file, volume)
            reply: dict[str, Any] = {} if fault is None else {"fault": fault}
        except MemoryError:
            reply = {"memory": True}
        write_message(replies, reply)
        if reply:
            break


def _start_alarm(seconds: float) -> None:
    """Let the system end this process after some time, in case the parent no longer can; 0 cancels it."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(count: int) -> None:
    """Limit the bytes that this process may allocate from now on, where the system can."""
    if sys.platform != "linux":
        return  # elsewhere the parent watches
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + count
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    _serve()
