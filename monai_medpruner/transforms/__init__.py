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


"""From a file to the slices that are worth encoding: load, check, orient, window, filter."""

from __future__ import annotations

from .anchor_filter import (
    InterSliceAnchorFilter,
    InterSliceAnchorFilterD,
    InterSliceAnchorFilterd,
    InterSliceAnchorFilterDict,
)
from .check_volume import CheckVolume, CheckVolumeD, CheckVolumed, CheckVolumeDict
from .hu_windows import HU_WINDOWS, HUWindows, HUWindowsD, HUWindowsd, HUWindowsDict
from .intensity_windows import (
    IntensityWindows,
    IntensityWindowsD,
    IntensityWindowsd,
    IntensityWindowsDict,
    PercentileWindow,
    PercentileWindowD,
    PercentileWindowd,
    PercentileWindowDict,
)
from .load_volume import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict
from .slice_limit import SliceLimit, SliceLimitD, SliceLimitd, SliceLimitDict
from .slice_min_max import SliceMinMax, SliceMinMaxD, SliceMinMaxd, SliceMinMaxDict
from .slice_plane import SlicePlane, SlicePlaneD, SlicePlaned, SlicePlaneDict
from .slice_range import SliceRange, SliceRangeD, SliceRanged, SliceRangeDict
from .timed_compose import TimedCompose

__all__ = [
    "HU_WINDOWS",
    "CheckVolume",
    "CheckVolumeD",
    "CheckVolumeDict",
    "CheckVolumed",
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
    "LoadVolume",
    "LoadVolumeD",
    "LoadVolumeDict",
    "LoadVolumed",
    "PercentileWindow",
    "PercentileWindowD",
    "PercentileWindowDict",
    "PercentileWindowd",
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
]
