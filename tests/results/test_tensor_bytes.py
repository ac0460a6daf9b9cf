# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Files of tensors have the same bytes for the same content, and the library reads them."""

from __future__ import annotations

import torch
from safetensors import safe_open
from safetensors.torch import load

from monai_medpruner.results import tensor_bytes

TENSORS = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.bfloat16), "empty": torch.zeros(0, 4)}
TEXTS = {f"name {number}": f"text ü {number}" for number in range(9)}


def test_same_bytes_in_any_order():
    expected = tensor_bytes(TENSORS, TEXTS)
    for _ in range(5):
        assert tensor_bytes(dict(reversed(TENSORS.items())), dict(reversed(TEXTS.items()))) == expected


def test_library_reads_it(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(tensor_bytes(TENSORS, TEXTS))
    with safe_open(path, "pt") as file:
        assert file.metadata() == TEXTS
    read = load(path.read_bytes())
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], one) for name, one in TENSORS.items())
