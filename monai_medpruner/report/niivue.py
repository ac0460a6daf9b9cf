# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The script of NiiVue, a viewer of volumes in the browser, as the package ipyniivue has it."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from urllib.parse import unquote

from monai_medpruner.errors import PackageVersionError

__all__ = ["niivue_module"]

_PACKAGE, _SCRIPT = "ipyniivue", Path("static", "widget.js")
#: of the module that NiiVue 0.65.0 publishes on npm for pages of their own (its export "./min", decoded)
_SHA256 = "35e7040be726521bdae73f2171df3bf2701cda991c10f8be9929231fceb30272"
_INSTALL = 'pip install "monai-medpruner[view]"'


def niivue_module() -> bytes:
    """Return NiiVue 0.65.0 as an ECMAScript module that exports ``Niivue``.

    The package's widget has the module in it, word for word, for the pages that it saves: its longest string, percent
    encoded. Nothing of the package is imported, since its Python needs Jupyter's.

    Raises:
        PackageVersionError: ipyniivue is not installed, or has another version of NiiVue.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise PackageVersionError(f"the viewer needs NiiVue: {_INSTALL}")
    try:
        script = Path(found.origin).parent.joinpath(_SCRIPT).read_text(encoding="utf-8")
    except OSError as error:
        raise PackageVersionError(
            f"the installed {_PACKAGE} has no readable {_SCRIPT.as_posix()} ({error.strerror}): {_INSTALL}"
        ) from error
    module = unquote(max(script.split('"'), key=len)).encode()
    if hashlib.sha256(module).hexdigest() != _SHA256:
        raise PackageVersionError(f"the installed {_PACKAGE} does not have NiiVue 0.65.0, which is needed: {_INSTALL}")
    return module
