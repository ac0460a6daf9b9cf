# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Mutated NIfTI files are read with nibabel's values, or refused; ``scripts/fuzz_nifti.py`` reads more of them."""

from __future__ import annotations

import importlib
import random
import time

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

#: mutants that were wrong: an extension of a gigabyte by its size; an extension that runs into the voxels
FORMER_FINDINGS = (186, 242, 649)


@pytest.fixture
def fuzz(monkeypatch, repository):
    monkeypatch.syspath_prepend(repository / "scripts")
    return importlib.import_module("fuzz_nifti")


def test_eighty_mutants(fuzz):
    found = fuzz.run([*range(80), *FORMER_FINDINGS])
    assert {seed: text for seed, (_, text) in found.items() if text.startswith("FINDING")} == {}
    outcomes = {text.split(":")[0] for _, text in found.values()}
    assert {"read", "read, with a note", "refused"} <= outcomes
    assert len({kind for kind, _ in found.values()}) == len(set(fuzz.KINDS))


def test_a_mutant_is_made_again_by_its_seed(fuzz):
    assert [fuzz.mutant(seed) for seed in range(20)] == [fuzz.mutant(seed) for seed in range(20)]


@pytest.fixture
def plain(fuzz, tmp_path):
    """A file that is as it should be."""
    header, voxels = next(made for seed in range(20) if (made := fuzz.base(random.Random(seed)))[0]["sform_code"])
    (tmp_path / "v.nii").write_bytes(fuzz.content(header, voxels))
    assert fuzz.outcome(tmp_path / "v.nii") == "read"
    return tmp_path / "v.nii"


@pytest.mark.parametrize("what", ["voxels", "affine", "error", "memory", "time"])
def test_what_is_wrong_is_a_finding(fuzz, plain, monkeypatch, what):
    voxels, affine, _ = fuzz.expected(plain)

    def load(_):
        if what == "error":
            raise KeyError("x")
        if what == "memory":
            np.zeros(2 * fuzz.MEMORY_BYTES, np.uint8)
        if what == "time":
            monkeypatch.setattr(fuzz, "SECONDS", 0.2)
            with fuzz.limits():
                time.sleep(20)
        image = MetaTensor(voxels[None].astype(np.float32), affine=affine, meta={"notes": []})
        image[0, 1, 1, 1] += what == "voxels"
        image.affine[0, 3] += what == "affine"
        return image

    monkeypatch.setattr(fuzz, "LoadVolume", lambda: load)
    assert fuzz.outcome(plain).startswith("FINDING")


def test_forms_are_those_of_nibabel(fuzz):
    """For headers that nibabel takes as they are."""
    for seed in range(50):
        header, _ = fuzz.base(random.Random(seed))
        sform, qform = fuzz.forms(header)
        if header["sform_code"]:
            np.testing.assert_allclose(sform, header.get_sform(), atol=1e-6)
        if header["qform_code"]:
            np.testing.assert_allclose(qform, header.get_qform(), atol=1e-4)


def test_the_oracle_reads_what_the_header_says(fuzz, tmp_path):
    header, voxels = fuzz.base(random.Random(3))
    (tmp_path / "v.nii").write_bytes(fuzz.content(header, voxels))
    found, affine, _ = fuzz.expected(tmp_path / "v.nii")
    assert np.array_equal(found.reshape(voxels.shape), voxels)
    assert np.array_equal(affine, nib.load(tmp_path / "v.nii").affine)
