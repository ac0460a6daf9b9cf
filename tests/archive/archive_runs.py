# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the tests of an archive agree on."""

from __future__ import annotations

BUNDLE = "medpruner_phantom"
STUDIES = 20
CUT = "phantom_000007.nii.gz"  # cut off after the phantoms are written


def lasting(lines):
    """Return lines by id, without what differs between equal runs (time and memory)."""
    changing = ("seconds", "peak_memory_mb")
    return {line["id"]: {name: value for name, value in line.items() if name not in changing} for line in lines}
