# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Check received attention on the GPU against float64 on the CPU, at the sizes of one slice of the encoders.

A warning of the package ends the check: it says that a fused kernel was given up.
"""

from __future__ import annotations

import argparse
import logging
import sys

import torch

from monai_medpruner.pruners import attention_received

TOLERANCE = 1e-3


class _Refuse(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.exit(record.getMessage())


def main() -> None:
    """Run the check."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU")
    logging.getLogger("monai_medpruner").addHandler(_Refuse(logging.WARNING))
    generator = torch.Generator().manual_seed(0)
    for patches in (256, 1024, 4096):
        query, key = torch.randn(2, 1, 16, patches, 72, generator=generator, dtype=torch.bfloat16)
        weights = (query.double() @ key.double().transpose(-1, -2) * 72**-0.5).softmax(-1)
        expected = weights.sum((1, 2)) / 16
        found = attention_received(query.cuda(), key.cuda()).cpu().double()
        error = ((found - expected).abs() / expected).max().item()
        print(f"{patches} patches: largest relative difference {error:.1e}")
        if error > TOLERANCE:
            sys.exit(f"received attention differs by more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
