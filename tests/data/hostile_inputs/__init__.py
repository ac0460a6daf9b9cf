# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Inputs that went wrong for others: one small generator each, what is right, and what this package does with it."""

from __future__ import annotations

from hostile_inputs import (
    dicom_folders,
    dicom_frames,
    dicom_geometry,
    dicom_pixels,
    dicom_series,
    nifti_files,
    nifti_headers,
)
from hostile_inputs.case import HostileInput

__all__ = ["INPUTS"]

#: every input, in the order of the page
INPUTS: list[HostileInput] = [
    *nifti_files.INPUTS,
    *nifti_headers.INPUTS,
    *dicom_pixels.INPUTS,
    *dicom_geometry.INPUTS,
    *dicom_series.INPUTS,
    *dicom_folders.INPUTS,
    *dicom_frames.INPUTS,
]
