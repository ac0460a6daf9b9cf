# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A folder with the rows of kept tokens, one file a slice, which the client writes and a vLLM server reads.

A question then carries the names of the slices in place of their rows. A name is the hash of everything that the
language model reads of a slice (:func:`~monai_medpruner.engines.vllm.pruned_request.slice_name`), so a file never
changes, and who reads it can tell whether it is the right one.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from monai_medpruner.engines.vllm.pruned_request import SLICE_NAME, PrunedRequest, slice_name
from monai_medpruner.errors import EngineError, OutputFolderError

__all__ = ["read_rows", "row_file", "write_rows"]

_ROWS = "rows"


def row_file(folder: Path, name: str) -> Path:
    """Return the file of a slice's rows.

    Args:
        folder: with the rows of all studies.
        name: of the slice.

    Raises:
        EngineError: the name is no hash; a caller must not choose a file.
    """
    if not SLICE_NAME.fullmatch(name):
        raise EngineError("the name of a slice must be its SHA-256 hash, 64 hexadecimal digits")
    return folder / name[:2] / f"{name}.safetensors"


def write_rows(folder: Path, request: PrunedRequest) -> list[str]:
    """Write the rows of a request's slices that are not there yet. Others see whole files only.

    Args:
        folder: with the rows of all studies; it must exist.
        request: the prompt.

    Returns:
        The names of the slices.

    Raises:
        OutputFolderError: the folder does not exist, or a file cannot be written.
    """
    if not folder.is_dir():
        raise OutputFolderError(f"the folder of rows {folder} does not exist; make it where the vLLM server reads it")
    names = request.slice_names()
    for name, rows in zip(names, request.rows, strict=True):
        file = row_file(folder, name)
        if not file.exists():
            try:
                _write(file, save({_ROWS: rows.contiguous()}))
            except OSError as error:
                raise OutputFolderError(f"cannot write to {folder}: {error.strerror or error}") from error
    return names


def _write(file: Path, content: bytes) -> None:
    """Write a file whole. Threads and machines may do so at once: process ids would not tell their parts apart."""
    file.parent.mkdir(exist_ok=True)
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_rows(folder: Path, name: str, positions: torch.Tensor, extent: int) -> torch.Tensor:
    """Return the rows of a slice, ``(K, width)``.

    Args:
        folder: with the rows of all studies.
        name: of the slice.
        positions: of its kept tokens, int64 ``(K, 3)``.
        extent: how many positions the whole slice takes.

    Raises:
        EngineError: there is no such file, it is damaged, or it holds the rows of another slice.
    """
    file = row_file(folder, name)
    try:
        rows = load_file(file)[_ROWS]
    except FileNotFoundError as error:
        raise EngineError("the rows of a slice are not in the folder of rows; send the study again") from error
    except (OSError, KeyError, SafetensorError) as error:
        raise EngineError(f"the rows of a slice cannot be read: {type(error).__name__}") from error
    if slice_name(rows, positions, extent) != name:
        raise EngineError("the file of a slice's rows does not hold what its name says: it is damaged or was changed")
    return rows
