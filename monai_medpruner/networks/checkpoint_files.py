# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""JSON files of checkpoints, with errors that name what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from monai_medpruner.errors import CheckpointError

__all__ = ["checkpoint_digest", "chosen_fields", "read_json"]

_SAMPLES, _SAMPLE_BYTES = 64, 65536


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is absent, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} lacks {path.name}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content


def chosen_fields(
    fields: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...], place: str
) -> dict[str, Any]:
    """Return those of the fields that are named.

    Args:
        fields: to choose from.
        required: names that must be there.
        optional: names that may be there.
        place: where the fields come from, for the error.

    Raises:
        CheckpointError: required ones are absent; all of them are named.
    """
    if missing := [name for name in required if name not in fields]:
        raise CheckpointError(f"{place} lacks {', '.join(missing)}")
    return {name: fields[name] for name in (*required, *optional) if name in fields}


def checkpoint_digest(path_or_id: str) -> str | None:
    """Name the content of a checkpoint folder, for telling one from another.

    Of files up to 4 MB every byte counts; of larger ones, the weights, 64 blocks spread evenly.

    Returns:
        16 hexadecimal digits of SHA-256; None where there is no such folder (a Hub id has its revision).
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
