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
