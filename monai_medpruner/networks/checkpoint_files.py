# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Read the JSON files of a checkpoint, and compute the digest of its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from monai_medpruner.errors import CheckpointError

__all__ = ["checkpoint_digest", "chosen_fields", "pickled_weights", "read_json"]

_SAMPLES, _SAMPLE_BYTES = 64, 65536
_PICKLED = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} lacks {path.name}; download the checkpoint again") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}; download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must be a JSON object, got {type(content).__name__}; download it again")
    return content


def chosen_fields(
    fields: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...], place: str
) -> dict[str, Any]:
    """Return the named fields.

    Args:
        fields: all fields.
        required: names of fields that must exist.
        optional: names of fields that may exist.
        place: source of the fields, for the error message.

    Raises:
        CheckpointError: required fields are missing; the message names all of them.
    """
    if missing := [name for name in required if name not in fields]:
        raise CheckpointError(f"{place} lacks {', '.join(missing)}")
    return {name: fields[name] for name in (*required, *optional) if name in fields}


def pickled_weights(folder: Path) -> str | None:
    """Return the name of a file with pickled weights in a folder without safetensors; None if there is none."""
    if any(folder.glob("*.safetensors")):
        return None
    return next((path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLED), None)


def checkpoint_digest(path_or_id: str) -> str | None:
    """Return a digest of the files in a checkpoint folder.

    Files up to 4 MB are hashed completely. Of larger files, the weights, 64 evenly spaced blocks are hashed.

    Returns:
        The first 16 hexadecimal digits of a SHA-256 hash; None if there is no such folder (a Hub id has a revision).
    """
    folder = Path(path_or_id)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".jinja")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        step = max(1, (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
        with path.open("rb") as file:
            for start in range(0, size, max(step, _SAMPLE_BYTES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
