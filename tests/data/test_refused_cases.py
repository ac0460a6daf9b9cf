# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shared cases of one bad slice in a series: it is refused by name, and the next volume is read."""

from __future__ import annotations

import pytest

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import UnreadableVolumeError, VolumeShapeError


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("01_palette_color_abort.py", (VolumeShapeError, UnreadableVolumeError)),
        ("03_short_pixel_data.py", UnreadableVolumeError),
    ],
)
def test_a_bad_slice_is_named_and_the_next_volume_read(shared_case, script, error):
    folder = shared_case(script)
    bad = folder / "I0005.dcm"
    reader = VolumeReader()
    with pytest.raises(error, match=r"I0005\.dcm"):
        reader.read(folder)
    files = sorted(folder.glob("*.dcm"))
    assert bad in files
    for path in files[4:]:  # what is left is a volume of its own
        path.unlink()
    assert reader.read(folder).voxels.shape[-1] == 4
