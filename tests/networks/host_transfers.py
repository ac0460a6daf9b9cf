# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Counts what would make the host wait for a device, on the CPU too, where nothing waits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# operators whose result or its shape the host must know before it goes on
_READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
# these, where a mask is among the indices
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# methods that do not reach the dispatcher on the CPU
_COPIES = {"tolist", "cpu", "numpy"}


class HostTransfers(TorchDispatchMode):
    """Counts transfers to the host while it is active.

    Args:
        counted: names and numbers of what was found; shared with :class:`HostCopies`.
    """

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in _INDEXING and any(one is not None and one.dtype == torch.bool for one in args[1])
        counts_repeats = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in _READS or masked or counts_repeats:
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


class HostCopies(TorchFunctionMode):
    """Counts the methods of a tensor that bring it to the host."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        to_host = name == "to" and any(isinstance(one, str) and one == "cpu" for one in (*args[1:], *kwargs.values()))
        if name in _COPIES or to_host:
            self.counted[name] += 1
        return func(*args, **kwargs)
