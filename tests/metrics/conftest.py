# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""WordNet for the tests that need it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from monai_medpruner.errors import PackageVersionError
from monai_medpruner.metrics import find_wordnet, prepare_wordnet


@pytest.fixture(scope="session")
def prepared_wordnet(tmp_path_factory) -> Path:
    """A folder that prepare_wordnet made just now; skips where apt cannot."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("needs apt-get and dpkg, which are absent here")
    folder = tmp_path_factory.mktemp("wordnet")
    try:
        prepare_wordnet(folder)
    except PackageVersionError as error:
        pytest.skip(f"Debian's packages cannot be had here: {error}")
    return folder


@pytest.fixture(scope="session")
def wordnet(request):
    """A WordNet reader: NLTK's own where there is one, else Debian's; skips where neither is to be had."""
    return find_wordnet() or find_wordnet(request.getfixturevalue("prepared_wordnet"))
