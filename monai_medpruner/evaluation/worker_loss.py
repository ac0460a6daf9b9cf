# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Workers of a data loader that die: PyTorch reports one wherever the main process happens to be."""

from __future__ import annotations

import re

from monai_medpruner.errors import LoaderWorkerError

__all__ = ["is_worker_loss", "worker_loss"]

_LOSS = re.compile(r"DataLoader worker \(pid.*\)")


def is_worker_loss(error: BaseException) -> bool:
    """Return whether an error says that a worker of a data loader has died."""
    return isinstance(error, RuntimeError) and _LOSS.match(str(error)) is not None


def worker_loss(error: BaseException) -> LoaderWorkerError:
    """Return the error for the volume that the worker was loading."""
    signal = re.search(r"killed by signal: ([A-Za-z ]+)", f"{error} {error.__cause__}")
    how = f"was ended by a signal ({signal.group(1)})" if signal else "ended unexpectedly"
    return LoaderWorkerError(
        f"the process that loaded the volume {how}: perhaps memory ran out, or the file ends its reader. Use fewer "
        "workers of the data loader, or look at the file"
    )
