# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the picture of a mermaid diagram is; its name has the hash of the diagram."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURES = REPOSITORY / "docs" / "pictures"
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def diagram_picture(diagram: str) -> Path:
    """Return the path of the picture of a diagram."""
    return PICTURES / f"diagram_{hashlib.sha256(diagram.encode()).hexdigest()[:12]}.svg"
