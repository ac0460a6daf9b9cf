# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The weights of a checkpoint against the hashes that are known of them.

Safetensors hold no hash. It is known from one of three places: a file ``SHA256SUMS`` beside the weights, as
``sha256sum *.safetensors`` writes it; the Hub's cache, whose links lead to files that are named by their SHA-256; and
the notes that ``hf download --local-dir`` leaves in ``.cache/huggingface``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import CheckpointError

__all__ = ["CHECKSUMS", "check_hashes", "known_hashes", "write_checksums"]

#: name of the file with the hashes of a checkpoint's weights
CHECKSUMS = "SHA256SUMS"
_WEIGHTS = "*.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_BLOCK_BYTES = 2**22


def known_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the weights in a checkpoint folder by file name, as far as they are known.

    Raises:
        CheckpointError: ``SHA256SUMS`` is damaged, or names weights that are missing.
    """
    known = {}
    for file in folder.glob(_WEIGHTS):
        if file.is_symlink() and _SHA256.fullmatch(name := file.resolve().name):
            known[file.name] = name
        elif (noted := _noted(folder, file.name)) is not None:
            known[file.name] = noted
    return {**known, **_listed(folder)}


def check_hashes(folder: Path) -> None:
    """Hash the weights in a checkpoint folder, several files at once, and compare with what is known of them.

    Raises:
        CheckpointError: a file is not what it should be.
    """
    known = known_hashes(folder)
    with ThreadPoolExecutor() as threads:
        found = dict(zip(known, threads.map(_sha256, [folder / name for name in known]), strict=True))
    if damaged := sorted(name for name, digest in found.items() if digest != known[name]):
        raise CheckpointError(
            f"{damaged[0]} in {folder} is damaged or was changed: its SHA-256 is not the one that is known of it. "
            f"Download the checkpoint again; if you changed the weights, write {CHECKSUMS} again, or remove it"
        )


def write_checksums(folder: Path) -> None:
    """Write ``SHA256SUMS`` for the weights in a checkpoint folder.

    Raises:
        OutputFolderError: it cannot be written.
    """
    lines = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.glob(_WEIGHTS))]
    atomic_write(folder / CHECKSUMS, "".join(lines).encode())


def _listed(folder: Path) -> Mapping[str, str]:
    """Return what ``SHA256SUMS`` says of the weights."""
    file = folder / CHECKSUMS
    if not file.is_file():
        return {}
    listed = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if (match := _LINE.fullmatch(line)) is None:
            raise CheckpointError(f"{file} is damaged: expected a SHA-256 and a name in each line")
        if Path(match.group(2)).match(_WEIGHTS):
            listed[Path(match.group(2)).name] = match.group(1)
    if missing := sorted(name for name in listed if not (folder / name).is_file()):
        raise CheckpointError(f"{folder} lacks {missing[0]}, which {CHECKSUMS} names; download the checkpoint again")
    return listed


def _noted(folder: Path, name: str) -> str | None:
    """Return the hash that a download into the folder has noted for a file: the second line of its note."""
    note = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    if not note.is_file():
        return None
    lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[1] if len(lines) > 1 and _SHA256.fullmatch(lines[1]) else None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)  # lets other threads run
    return digest.hexdigest()
