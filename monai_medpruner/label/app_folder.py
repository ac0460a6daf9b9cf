# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The app folder for MONAI Label's server."""

from __future__ import annotations

import os
from pathlib import Path

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError

__all__ = ["app_folder"]


def app_folder() -> Path:
    """Create the app folder, ``monai_medpruner/label_app`` in the user's cache folder, and return it.

    MONAI Label writes its log and other files into the app folder, so it must not be in the installed package.

    Raises:
        OutputFolderError: the folder cannot be written.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "monai_medpruner" / "label_app"
    text = (Path(__file__).parent / "main.py").read_bytes()
    main = folder / "main.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not main.is_file() or main.read_bytes() != text:
            atomic_write(main, text)
    except OSError as error:
        raise OutputFolderError(f"cannot write the app's folder {folder}: {error.strerror}") from error
    return folder
