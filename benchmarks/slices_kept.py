# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Count the slices of real volumes that the anchor filter keeps, by threshold."""

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
    parser.add_argument("folder", type=Path, help="folder of the volumes")
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
