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

"""How many slices of real volumes the anchor filter keeps, by threshold."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_medpruner.transforms import IntensityWindows, InterSliceAnchorFilter, LoadVolume, SlicePlane

VOLUMES = {
    "ct_torso_dicom": "ct",
    "ct_head_tilted_dicom": "ct",
    "ct_torso_nifti/ct.nii.gz": "ct",
    "mr_torso_nifti/mr_small.nii.gz": "mr",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds the volumes of shared/data")
    parser.add_argument("--gamma", type=float, nargs="+", default=[0.025, 0.05, 0.1])
    arguments = parser.parse_args()
    print("| volume | slices | " + " | ".join(f"γ = {gamma}" for gamma in arguments.gamma) + " |")
    print("|---|---|" + "---|" * len(arguments.gamma))
    for name, modality in VOLUMES.items():
        volume = IntensityWindows(modality)(SlicePlane()(LoadVolume()(arguments.folder / name)))
        kept = [len(InterSliceAnchorFilter(gamma).kept_slices(volume)) for gamma in arguments.gamma]
        print(f"| {name} | {volume.shape[-1]} | " + " | ".join(map(str, kept)) + " |")


if __name__ == "__main__":
    main()
