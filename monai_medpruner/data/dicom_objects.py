# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM objects that are no images, by the SOP class in their file meta information."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MEDIA_DIRECTORY", "non_image_kind", "passed_over_note"]

MEDIA_DIRECTORY = "media directory"
_SOP_CLASS = (2, 2)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: SOP class, or its beginning where it ends with a dot -> kind; DICOM PS3.4, table B.5-1, and PS3.3 for directories
_KINDS = {
    "1.2.840.10008.1.3.10": MEDIA_DIRECTORY,
    f"{_STORAGE}481.2": "radiotherapy dose",
    f"{_STORAGE}481.3": "radiotherapy structure set",
    f"{_STORAGE}481.4": "radiotherapy treatment record",
    f"{_STORAGE}481.5": "radiotherapy plan",
    f"{_STORAGE}481.6": "radiotherapy treatment record",
    f"{_STORAGE}481.7": "radiotherapy treatment record",
    f"{_STORAGE}481.8": "radiotherapy plan",
    f"{_STORAGE}481.9": "radiotherapy treatment record",
    f"{_STORAGE}88.59": "key object selection",
    f"{_STORAGE}88.67": "dose report",
    f"{_STORAGE}88.": "structured report",
    f"{_STORAGE}11.": "presentation state",
    f"{_STORAGE}104.": "embedded document",
    f"{_STORAGE}9.": "waveform",
    f"{_STORAGE}66": "raw data",
    f"{_STORAGE}66.1": "registration",
    f"{_STORAGE}66.2": "fiducials",
    f"{_STORAGE}66.3": "registration",
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.5": "surface segmentation",
    f"{_STORAGE}66.6": "tractography",
    f"{_STORAGE}67": "value mapping",
}


def non_image_kind(path: Path) -> str | None:
    """Return the kind of a DICOM object that its SOP class says is no image; None for any other file.

    Args:
        path: a file with the DICOM magic number. One named DICOMDIR is a media directory, as DICOM PS3.10 has it.
    """
    if path.name.upper() == "DICOMDIR":
        return MEDIA_DIRECTORY
    found = _sop_class(path)
    if found in _KINDS:
        return _KINDS[found]
    beginnings = [name for name in _KINDS if name.endswith(".") and found.startswith(name)]
    return _KINDS[max(beginnings, key=len)] if beginnings else None


def passed_over_note(kinds: Iterable[str]) -> list[str]:
    """Return a note on the objects that were passed over; none without any."""
    counts = Counter(kinds)
    listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(counts.items()))
    return [f"DICOM objects that are no images were passed over: {listed}"] if counts else []


def _sop_class(path: Path) -> str:
    """MediaStorageSOPClassUID; empty if the file does not state it. Group 2 is always explicit little endian."""
    with path.open("rb") as file:
        file.seek(132)
        for _ in range(64):
            head = file.read(8)
            if len(head) < 8:
                return ""
            group, element, representation, length = struct.unpack("<HH2sH", head)
            if group != _SOP_CLASS[0]:
                return ""
            if representation in (b"OB", b"UN"):
                length = struct.unpack("<I", file.read(4).ljust(4, b"\0"))[0]
            if (group, element) == _SOP_CLASS:
                return file.read(length).decode("ascii", "replace").strip(" \0")
            file.seek(length, 1)
    return ""
