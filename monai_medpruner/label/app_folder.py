# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The folder that MONAI Label's server is started with."""

from __future__ import annotations

import os
from pathlib import Path

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.whole_file import write_whole

__all__ = ["app_folder"]


def app_folder() -> Path:
    """Write the app's folder and return it: ``monai_medpruner/label_app`` in the user's cache folder.

    MONAI Label writes its log and further folders into the folder of an app, which the installed package must not be.

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
            write_whole(main, text)
    except OSError as error:
        raise OutputFolderError(f"cannot write the app's folder {folder}: {error.strerror}") from error
    return folder
