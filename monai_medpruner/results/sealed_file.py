# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Safetensors files that hold a hash of every byte of themselves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load

from monai_medpruner.results.tensor_bytes import tensor_bytes

__all__ = ["seal_tensors", "unseal_tensors"]

# the hash of a file stands in its own header, in the place of these zeros
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_UNSEALED = "0" * 64


def seal_tensors(tensors: Mapping[str, torch.Tensor], described: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file with a hash of all of it.

    Args:
        tensors: contiguous, on the CPU.
        described: texts in the header; "format" says what the file is.
    """
    content = tensor_bytes(tensors, {**described, "sha256": _UNSEALED})
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(f'"sha256":"{_UNSEALED}"'.encode(), f'"sha256":"{digest}"'.encode(), 1)


def unseal_tensors(content: bytes, expected_format: str) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    """Return the tensors and the texts of a file whose every byte is as it was written.

    Raises:
        ValueError: it has another format, or its hash is not that of its content.
        SafetensorError: it is no safetensors file.
    """
    size = int.from_bytes(content[:8], "little")
    found = _SEAL.search(content, 8, min(8 + size, len(content)))
    if found is None:
        raise ValueError("it holds no hash of its content")
    digest = hashlib.sha256(memoryview(content)[: found.start(1)])
    digest.update(_UNSEALED.encode())
    digest.update(memoryview(content)[found.end(1) :])
    if digest.hexdigest() != found.group(1).decode():
        raise ValueError("its hash is not that of its content")
    described = json.loads(content[8 : 8 + size])["__metadata__"]
    if described.get("format") != expected_format:
        raise ValueError(f"its format is {described.get('format')!r}, expected {expected_format!r}")
    return load(content), described
