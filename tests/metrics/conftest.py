# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""WordNet fixtures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from monai_medpruner.errors import PackageVersionError
from monai_medpruner.metrics import find_wordnet, prepare_wordnet


@pytest.fixture(scope="session")
def prepared_wordnet(tmp_path_factory) -> Path:
    """A folder freshly made by prepare_wordnet; skips if apt is not available."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("needs apt-get and dpkg")
    folder = tmp_path_factory.mktemp("wordnet")
    try:
        prepare_wordnet(folder)
    except PackageVersionError as error:
        pytest.skip(f"the Debian packages cannot be downloaded: {error}")
    return folder


@pytest.fixture(scope="session")
def wordnet(request):
    """A WordNet reader, from NLTK's search path or from Debian; skips if neither is available."""
    return find_wordnet() or find_wordnet(request.getfixturevalue("prepared_wordnet"))
