# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures for the tests of the MONAI Label app."""

from __future__ import annotations

import numpy as np
import pytest
from label_server import TINY_CONF, start_server, write_study


@pytest.fixture(scope="session")
def server(tmp_path_factory, repository):
    """A server of the tiny model, with NIfTI studies and, if shared/data exists, DICOM folders."""
    pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own, see docs/label.md")
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    studies.mkdir()
    write_study(studies / "study.nii.gz")
    write_study(studies / "other.nii", seed=1, affine=np.diag([0.7, 0.7, 3.0, 1.0]))
    write_study(studies / "deep.nii.gz", shape=(160, 160, 160), seed=2)
    (studies / "broken.nii.gz").write_bytes((studies / "study.nii.gz").read_bytes()[:3000])
    for name in ("ct_torso_dicom", "ct_head_tilted_dicom"):
        if (source := repository.parent / "shared" / "data" / name).is_dir():
            (studies / name).symlink_to(source)
    server = start_server(folder, studies, TINY_CONF, repository)
    yield server
    server.process.terminate()
    server.process.wait(timeout=30)
