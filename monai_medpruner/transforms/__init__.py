# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""From a file to the slices that are worth encoding: load, check, orient, window, filter."""

from __future__ import annotations

from monai_medpruner.transforms.anchor_filter import (
    InterSliceAnchorFilter,
    InterSliceAnchorFilterD,
    InterSliceAnchorFilterd,
    InterSliceAnchorFilterDict,
    with_threshold,
)
from monai_medpruner.transforms.check_volume import CheckVolume, CheckVolumeD, CheckVolumed, CheckVolumeDict
from monai_medpruner.transforms.crop_body import CropBody, CropBodyD, CropBodyd, CropBodyDict
from monai_medpruner.transforms.describe import describe_transform
from monai_medpruner.transforms.downsample_slices import (
    DownsampleSlices,
    DownsampleSlicesD,
    DownsampleSlicesd,
    DownsampleSlicesDict,
)
from monai_medpruner.transforms.find_body import FindBody, FindBodyD, FindBodyd, FindBodyDict
from monai_medpruner.transforms.hu_windows import HU_WINDOWS, HUWindows, HUWindowsD, HUWindowsd, HUWindowsDict
from monai_medpruner.transforms.intensity_windows import (
    IntensityWindows,
    IntensityWindowsD,
    IntensityWindowsd,
    IntensityWindowsDict,
    PercentileWindow,
    PercentileWindowD,
    PercentileWindowd,
    PercentileWindowDict,
)
from monai_medpruner.transforms.jpeg_slices import JpegSlices, JpegSlicesD, JpegSlicesd, JpegSlicesDict
from monai_medpruner.transforms.load_volume import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict
from monai_medpruner.transforms.select_slices import SelectSlices, SelectSlicesD, SelectSlicesd, SelectSlicesDict
from monai_medpruner.transforms.slice_limit import SliceLimit, SliceLimitD, SliceLimitd, SliceLimitDict
from monai_medpruner.transforms.slice_min_max import SliceMinMax, SliceMinMaxD, SliceMinMaxd, SliceMinMaxDict
from monai_medpruner.transforms.slice_plane import SlicePlane, SlicePlaneD, SlicePlaned, SlicePlaneDict
from monai_medpruner.transforms.slice_range import SliceRange, SliceRangeD, SliceRanged, SliceRangeDict
from monai_medpruner.transforms.timed_compose import TimedCompose

__all__ = [
    "HU_WINDOWS",
    "CheckVolume",
    "CheckVolumeD",
    "CheckVolumeDict",
    "CheckVolumed",
    "CropBody",
    "CropBodyD",
    "CropBodyDict",
    "CropBodyd",
    "DownsampleSlices",
    "DownsampleSlicesD",
    "DownsampleSlicesDict",
    "DownsampleSlicesd",
    "FindBody",
    "FindBodyD",
    "FindBodyDict",
    "FindBodyd",
    "HUWindows",
    "HUWindowsD",
    "HUWindowsDict",
    "HUWindowsd",
    "IntensityWindows",
    "IntensityWindowsD",
    "IntensityWindowsDict",
    "IntensityWindowsd",
    "InterSliceAnchorFilter",
    "InterSliceAnchorFilterD",
    "InterSliceAnchorFilterDict",
    "InterSliceAnchorFilterd",
    "JpegSlices",
    "JpegSlicesD",
    "JpegSlicesDict",
    "JpegSlicesd",
    "LoadVolume",
    "LoadVolumeD",
    "LoadVolumeDict",
    "LoadVolumed",
    "PercentileWindow",
    "PercentileWindowD",
    "PercentileWindowDict",
    "PercentileWindowd",
    "SelectSlices",
    "SelectSlicesD",
    "SelectSlicesDict",
    "SelectSlicesd",
    "SliceLimit",
    "SliceLimitD",
    "SliceLimitDict",
    "SliceLimitd",
    "SliceMinMax",
    "SliceMinMaxD",
    "SliceMinMaxDict",
    "SliceMinMaxd",
    "SlicePlane",
    "SlicePlaneD",
    "SlicePlaneDict",
    "SlicePlaned",
    "SliceRange",
    "SliceRangeD",
    "SliceRangeDict",
    "SliceRanged",
    "TimedCompose",
    "describe_transform",
    "with_threshold",
]
