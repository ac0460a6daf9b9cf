# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from pruner_oracles import attention_received_oracle
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import attention_received


def queries_and_keys(*shape: int, dtype: torch.dtype = torch.float32, size: float = 2.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    return [(torch.randn(shape, generator=generator) * size).to(dtype) for _ in range(2)]


def oracle(query: torch.Tensor, key: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Any leading axes; the values as they are in their type, in float64 from there on."""
    flat = [part.double().numpy().reshape(-1, *part.shape[-3:]) for part in (query, key)]
    received = [attention_received_oracle(*pair, scale) for pair in zip(*flat, strict=True)]
    return torch.from_numpy(np.stack(received).reshape(*query.shape[:-3], query.shape[-2]))


@pytest.mark.parametrize("chunk", [1, 7, 128])
@pytest.mark.parametrize("shape", [(1, 30, 4), (3, 41, 8), (2, 4, 17, 6), (2, 3, 2, 9, 5), (5, 1, 3)])
def test_equals_the_matrix_written_out(shape, chunk):
    query, key = queries_and_keys(*shape)
    received = attention_received(query, key, chunk=chunk)
    assert received.dtype == torch.float32
    torch.testing.assert_close(received.double(), oracle(query, key), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0])
def test_custom_scale(scale):
    query, key = queries_and_keys(2, 20, 16)
    received = attention_received(query, key, scale=scale)
    torch.testing.assert_close(received.double(), oracle(query, key, scale), rtol=1e-5, atol=1e-6)


def test_averages_one_and_needs_no_chunk_to_divide_the_length():
    query, key = queries_and_keys(4, 300, 8)
    whole = attention_received(query, key, chunk=10**6)
    assert whole.double().mean().item() == pytest.approx(1, abs=1e-6)
    assert whole.std() > 0.1  # the test would say nothing of a flat result
    for chunk in (1, 37, 100, 299, 300):
        torch.testing.assert_close(attention_received(query, key, chunk=chunk), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_summed_in_float32(dtype):
    query, key = queries_and_keys(3, 90, 8, dtype=dtype)
    received = attention_received(query, key, chunk=16)
    assert received.dtype == torch.float32
    # half precision would be off by its own rounding, 5e-4 or more
    torch.testing.assert_close(received.double(), oracle(query, key), rtol=1e-5, atol=1e-6)


def test_autocast_changes_nothing():
    query, key = queries_and_keys(3, 60, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        received = attention_received(query, key)
    assert torch.equal(received, attention_received(query, key))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 3e4), (torch.bfloat16, 1e15), (torch.float32, 1e15)])
def test_extreme_logits(dtype, size):
    # 64 tokens on 64 axes: each attends to itself alone
    axes = (torch.eye(64) * size).to(dtype).expand(2, 64, 64)
    torch.testing.assert_close(attention_received(axes, axes), torch.ones(64))
    # all attend to token 5 alone
    to_one = torch.zeros(2, 64, 64, dtype=dtype)
    to_one[:, 5] = size
    everywhere = torch.full((2, 64, 64), size, dtype=dtype)
    torch.testing.assert_close(attention_received(everywhere, to_one), torch.eye(64)[5] * 64)
    # all logits equal, and far below zero: uniform
    torch.testing.assert_close(attention_received(everywhere, -everywhere), torch.ones(64))


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that any operation's result held."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.numbers = max(self.numbers, leaf.numel())
        return result


@pytest.mark.parametrize(("heads", "length", "chunk"), [(4, 256, 16), (2, 200, 64), (8, 512, 1)])
def test_never_holds_the_attention_matrix(heads, length, chunk):
    query, key = queries_and_keys(heads, length, 4)
    with LargestTensor() as seen:
        attention_received(query, key, chunk=chunk)
    assert seen.numbers == length * max(chunk, heads * 4)  # a block of one head's rows, or the inputs in float32


def test_never_holds_the_attention_matrix_of_few_tokens():
    query, key = queries_and_keys(4, 100, 4)
    with LargestTensor() as seen:
        attention_received(query, key, chunk=16)
    assert seen.numbers == 4 * 100 * 16


def test_autograd_does_not_store_the_attention_matrix():
    query, key = (part.requires_grad_() for part in queries_and_keys(2, 10, 4))
    assert not attention_received(query, key).requires_grad


def test_inputs_stay_as_they_are():
    query, key = queries_and_keys(2, 33, 4)
    before = query.clone(), key.clone()
    attention_received(query, key, chunk=5)
    assert torch.equal(query, before[0])
    assert torch.equal(key, before[1])


@pytest.mark.parametrize(
    ("query", "key", "chunk", "message"),
    [
        ((2, 8, 4), (2, 9, 4), 128, "one shape"),
        ((2, 8, 4), (1, 8, 4), 128, "one shape"),
        ((8, 4), (8, 4), 128, "one shape"),
        ((2, 8, 4), (2, 8, 4), 0, "chunk"),
        ((2, 8, 4), (2, 8, 4), -1, "chunk"),
    ],
)
def test_bad_settings(query, key, chunk, message):
    with pytest.raises(SettingsError, match=message):
        attention_received(torch.zeros(query), torch.zeros(key), chunk=chunk)
