# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What local contrast keeps of a real CT of the torso: which share of its tokens lies on bone.

python benchmarks/local_contrast_organs.py ../shared/data

Every fourth slice in the soft-tissue window, 16 by 16 tokens of 16 pixels; a token belongs to the organ that covers
most of it, from a quarter of its pixels on. No encoder takes part. Writes ``results/local_contrast_organs.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from real_encoder_features import COVERED, planes, sources
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from monai_medpruner.networks.local_contrast import local_contrast_of

GRID, PIXELS, STEP = 16, 16, 4
SHARES = (0.05, 0.1)
BONES = ("vertebrae", "rib", "hip", "sacrum", "femur")
RESULTS = Path(__file__).resolve().parent / "results" / "local_contrast_organs.json"


def organs_of(labels: torch.Tensor) -> torch.Tensor:
    """Organ of each token, int64 ``(GRID * GRID,)``, 0 for none, from labels ``(H, W)`` of a square slice."""
    side = GRID * PIXELS
    fine = interpolate(labels[None, None].float(), (side, side), mode="nearest-exact")[0, 0].long()
    squares = fine.reshape(GRID, PIXELS, GRID, PIXELS).permute(0, 2, 1, 3).reshape(GRID**2, PIXELS**2)
    counts = torch.zeros(len(squares), int(squares.max()) + 1, dtype=torch.long)
    counts.scatter_add_(1, squares, torch.ones_like(squares))
    counts[:, 0] = 0
    most, organ = counts.max(1)
    return torch.where(most >= COVERED * PIXELS**2, organ, 0)


def shares(chosen: torch.Tensor, organs: torch.Tensor, bones: torch.Tensor) -> dict[str, float]:
    """Percent of the chosen tokens on bone, on another organ, and on none."""
    own = organs[chosen]
    bone = torch.isin(own, bones)
    parts = {"bone": bone, "other organ": (own > 0) & ~bone, "none": own == 0}
    return {name: round(100 * float(part.float().mean()), 1) for name, part in parts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real volumes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    (source,) = sources(options.data)["ct_torso"]
    names = json.loads(Path(str(source.labels).replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
    bones = torch.tensor([int(number) for number, name in names.items() if name.startswith(BONES)])
    slices, organs, body = [], [], []
    for _, _, plane, labels, inside in planes(replace(source, slices=STEP)):
        side = GRID * PIXELS
        slices.append(interpolate(plane[None, None].float(), (side, side), mode="bilinear", antialias=True)[0])
        organs.append(organs_of(labels))
        body.append(adaptive_avg_pool2d(inside[None], (GRID, GRID)).flatten() > 0.5)
    score, organ = local_contrast_of(slices, [(GRID, GRID)] * len(slices)).flatten(), torch.cat(organs)
    result: dict[str, Any] = {"volume": "ct_torso", "slices": len(slices), "tokens": len(score)}
    result["percent"] = {"body": shares(torch.cat(body), organ, bones)}
    for share in SHARES:
        kept = score.topk(int(share * len(score))).indices
        result["percent"][f"local contrast, {100 * share:g} %"] = shares(kept, organ, bones)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
