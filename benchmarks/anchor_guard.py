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

"""Would a guard for small lesions help the slice filter? Lesions lost against slices kept, on phantoms.

The filter keeps a slice whose mean absolute difference from the last kept one is above γ. A guard would also keep a
slice where the mean difference over some square block is above a bound, since a small lesion moves its block and not
the mean.
The table sets the guard in place of the mean, at several sizes and bounds, beside the mean alone.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from monai.transforms import Compose
from torch.nn.functional import avg_pool2d

from monai_medpruner.data.phantom import PRESETS, generate_phantom, phantom_seed
from monai_medpruner.training import load_phantom
from monai_medpruner.transforms import HUWindowsd, SlicePlaned

WINDOW = (-160, 340)


def kept_slices(slices: torch.Tensor, gamma: float, block: int, bound: float) -> list[int]:
    """Indices of the slices ``(D, H, W)`` that the mean or a block keeps."""
    kept = [0]
    for index in range(1, len(slices)):
        difference = slices[index] - slices[kept[-1]]
        guarded = block and avg_pool2d(difference[None], block).abs().max() > bound
        if difference.abs().mean() > gamma or guarded:
            kept.append(index)
    return kept


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=108, help="phantoms")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="small")
    options = parser.parse_args()
    prepare = Compose([SlicePlaned(["image", "lesion"]), HUWindowsd("image", [WINDOW])])
    volumes = []
    for number in range(options.count):
        phantom = generate_phantom(phantom_seed(options.seed, number), PRESETS[options.preset])
        if phantom.lesions:
            data = prepare({"image": load_phantom(phantom), "lesion": load_phantom(phantom, phantom.lesion_mask)})
            bearing = data["lesion"].as_tensor()[0].flatten(0, 1).any(0).nonzero().flatten().tolist()
            slices = data["image"].as_tensor()[0].permute(2, 0, 1)
            volumes.append((slices, set(bearing), phantom.lesions[0].diameter_mm))
    small = [diameter < 15 for *_, diameter in volumes]
    print(f"{len(volumes)} phantoms with a lesion, {sum(small)} of them below 15 mm; preset {options.preset}")
    print("| rule | slices kept | lesions seen | below 15 mm |\n|---|---|---|---|")
    rules = [(f"mean, γ {gamma:g}", gamma, 0, 0.0) for gamma in (0.015, 0.02, 0.025, 0.03, 0.04)]
    rules += [
        (f"block of {block} pixels, bound {bound:g}", np.inf, block, bound)
        for block in (3, 4, 6)
        for bound in (0.15, 0.25, 0.35, 0.45)
    ]
    for name, gamma, block, bound in rules:
        kept = [kept_slices(slices, gamma, block, bound) for slices, *_ in volumes]
        share = np.mean([len(one) / len(slices) for one, (slices, *_) in zip(kept, volumes, strict=True)])
        seen = np.array([bool(bearing & set(one)) for one, (_, bearing, _) in zip(kept, volumes, strict=True)])
        of_small = f"{seen[small].mean():.3f}" if any(small) else ""
        print(f"| {name} | {share:.3f} | {seen.mean():.3f} | {of_small} |")


if __name__ == "__main__":
    main()
