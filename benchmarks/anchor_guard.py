# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Evaluate the guard for small lesions of the slice filter: lesions seen and slices kept, on phantoms.

The filter keeps a slice if its mean absolute difference from the last kept slice is above γ. The guard also keeps a
slice if the mean difference over any square block is above a threshold, because a small lesion changes its block but
hardly the mean. The table compares the mean alone, the guard alone at several block sizes and thresholds, and both. The
last rows are the baseline: evenly spaced slices, in each volume as many as the mean alone keeps.
"""

from __future__ import annotations

import argparse

import numpy as np
from monai.transforms import Compose

from monai_medpruner.data.phantom import PRESETS, generate_phantom, phantom_seed
from monai_medpruner.training import load_phantom
from monai_medpruner.transforms import HUWindowsd, InterSliceAnchorFilter, SlicePlaned

WINDOW = (-160, 340)
GAMMAS = (0.015, 0.02, 0.025, 0.03, 0.04)
GUARD_ALONE = 1e9  # a γ above any mean difference
BLOCKS_MM = (12.5, 50 / 3, 25.0)  # 3, 4 and 6 pixels of the small phantoms


def rules() -> list[tuple[str, InterSliceAnchorFilter]]:
    """Return the rows of the table: the mean alone, the guard alone, and both."""
    rows = [(f"mean, γ {gamma:g}", InterSliceAnchorFilter(gamma)) for gamma in GAMMAS]
    rows += [
        (f"block of {side:.3g} mm, threshold {threshold:g}", InterSliceAnchorFilter(GUARD_ALONE, -1, side, threshold))
        for side in BLOCKS_MM
        for threshold in (0.15, 0.25, 0.35, 0.45)
    ]
    rows += [
        (
            f"mean, γ {gamma:g}, or block of {side:.3g} mm, threshold {threshold:g}",
            InterSliceAnchorFilter(gamma, -1, side, threshold),
        )
        for gamma in (0.02, 0.025, 0.04)
        for side in BLOCKS_MM
        for threshold in (0.25, 0.35)
    ]
    return rows


def evenly_spaced(count: int, depth: int) -> list[int]:
    """Return ``count`` slice indices, each at the center of one of ``count`` equal parts of ``depth``."""
    return [int((index + 0.5) * depth / count) for index in range(count)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=108, help="number of phantoms")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="small")
    options = parser.parse_args()
    prepare = Compose([SlicePlaned(["image", "lesion"]), HUWindowsd("image", [WINDOW])])
    volumes = []
    for number in range(options.count):
        phantom = generate_phantom(phantom_seed(options.seed, number), PRESETS[options.preset])
        if phantom.lesions:
            data = prepare({"image": load_phantom(phantom), "lesion": load_phantom(phantom, phantom.lesion_mask)})
            lesion_slices = data["lesion"].as_tensor()[0].flatten(0, 1).any(0).nonzero().flatten().tolist()
            volumes.append((data["image"], set(lesion_slices), phantom.lesions[0].diameter_mm))
    small = [diameter < 15 for *_, diameter in volumes]
    print(f"{len(volumes)} phantoms with a lesion, {sum(small)} of them below 15 mm; preset {options.preset}")
    print("| rule | slices kept | lesions seen | below 15 mm |\n|---|---|---|---|")
    choices = [(name, [rule.kept_slices(image) for image, *_ in volumes]) for name, rule in rules()]
    depths = [image.shape[-1] for image, *_ in volumes]
    for name, kept in choices[: len(GAMMAS)]:
        spaced = [evenly_spaced(len(one), depth) for one, depth in zip(kept, depths, strict=True)]
        choices.append((f"evenly spaced, as many as {name}", spaced))
    for name, kept in choices:
        share = np.mean([len(one) / depth for one, depth in zip(kept, depths, strict=True)])
        seen = np.array([bool(lesion & set(one)) for one, (_, lesion, _) in zip(kept, volumes, strict=True)])
        of_small = f"{seen[small].mean():.3f}" if any(small) else ""
        print(f"| {name} | {share:.3f} | {seen.mean():.3f} | {of_small} |")


if __name__ == "__main__":
    main()
