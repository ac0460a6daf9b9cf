# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A family from outside the package can be registered and removed."""

from __future__ import annotations

import pytest
import stock_oracle
from test_pruned_vlm import *  # noqa: F403 - the matrix, with the checkpoint of this module
from test_volume_qa import *  # noqa: F403
from toy_family import ToyFamily
from toy_model import TINY_TOY

from monai_medpruner.errors import SettingsError, UnsupportedModelError
from monai_medpruner.networks.families import (
    FAMILIES,
    Qwen3VLFamily,
    family_class,
    register_family,
    unregister_family,
)
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    register_family(ToyFamily)
    stock_oracle.POSITIONS["toy_slices"] = stock_oracle.renumbered_positions
    yield save_tiny_checkpoint(TINY_TOY, tmp_path_factory.mktemp("toy_slices"))
    del stock_oracle.POSITIONS["toy_slices"]
    unregister_family(ToyFamily)


@pytest.fixture
def families():
    """The registered families, restored after the test."""
    before = list(FAMILIES)
    yield FAMILIES
    FAMILIES[:] = before


def test_register_and_remove(families):
    if ToyFamily in families:
        unregister_family(ToyFamily)
    with pytest.raises(UnsupportedModelError, match=r"'toy_slices'; supported are: .*qwen3_vl.*register_family"):
        family_class("toy_slices")
    register_family(ToyFamily)
    assert family_class("toy_slices") is ToyFamily
    unregister_family(ToyFamily)
    with pytest.raises(UnsupportedModelError):
        family_class("toy_slices")


def test_model_type_is_registered_once(families):
    count = len(families)
    with pytest.raises(SettingsError, match="'qwen3_vl' is served already"):
        register_family(type("Other", (ToyFamily,), {"model_types": ("new", "qwen3_vl")}))
    assert len(families) == count
    assert family_class("qwen3_vl") is Qwen3VLFamily


def test_unregistered_family_cannot_be_removed(families):
    with pytest.raises(SettingsError, match="Other is not registered"):
        unregister_family(type("Other", (ToyFamily,), {}))


def test_guide_shows_the_toy_family(repository):
    source = (repository / "tests/networks/toy_family.py").read_text()
    code = source[source.index("from __future__") :]
    assert f"```python\n{code}```" in (repository / "docs/new_family.md").read_text()
