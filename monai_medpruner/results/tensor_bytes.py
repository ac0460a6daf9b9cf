# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Safetensors files whose bytes are the same for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors.torch import save

__all__ = ["tensor_bytes"]


def tensor_bytes(tensors: Mapping[str, torch.Tensor], described: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file.

    The library writes the texts of the header in a random order. Here they are sorted.

    Args:
        tensors: contiguous, on the CPU.
        described: texts in the header.
    """
    content = save(dict(tensors), dict(described))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    # tensors keep their order, which is that of their data
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data are aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + content[start:]
