# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Compare the slice rules at equal numbers of slices: lesions of phantoms met, and stretches of real CTs not seen.

Every rule gets the same number of slices of each volume, a share of its depth, and finds its own parameter for it. On
phantoms with a lesion: the share of lesions with a kept slice, and of lesion slices that are kept. On real CTs: the
share of balls inside the volume that a kept slice meets, exact, for balls spread evenly along the slice axis, and the
largest gap. Writes a JSON file; with --page, the page docs/slice_rules.md is written from it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from slice_rules_page import page

from monai_medpruner.data.phantom import PRESETS, generate_phantom, phantom_seed
from monai_medpruner.training import load_phantom
from monai_medpruner.transforms import HUWindows, HUWindowsd, LoadVolume, SlicePlane, SlicePlaned
from monai_medpruner.transforms.slice_rules import (
    AnchorRule,
    CumulativeChange,
    EvenlySpaced,
    EvenlySpacedMm,
    EVSRule,
    HuluMedRule,
    SliceRule,
    SliceStack,
)

RULES: dict[str, SliceRule] = {
    "anchor": AnchorRule(),
    "anchor, max_gap_mm 10": AnchorRule(max_gap_mm=10.0),
    "anchor, guard_mm 25": AnchorRule(guard_mm=25.0, guard_threshold=0.25),
    "evenly_spaced": EvenlySpaced(),
    "evenly_spaced_mm": EvenlySpacedMm(),
    "cumulative_change": CumulativeChange(),
    "evs": EVSRule(),
    "hulumed": HuluMedRule(),
}
SHARES = (0.6, 0.4, 0.3, 0.2, 0.1)
WINDOW = (-160, 340)
REAL = {
    "torso, 1.5 mm": "ct_full/s0024.nii.gz",
    "chest to abdomen, 3 mm": "ct_torso_nifti/ct.nii.gz",
    "head, tilted, uneven gaps": "ct_head_tilted_dicom",
}
BALLS_MM = (5.0, 10.0, 20.0)


def stack_of(image: MetaTensor) -> SliceStack:
    """The stack of a volume, in slice-major memory."""
    slices_first: Any = image.movedim(-1, 0).contiguous().movedim(0, -1)
    return SliceStack.from_volume(slices_first, 3)


def allowed(stack: SliceStack, share: float) -> int:
    """The number of slices that a share allows."""
    return max(1, round(share * stack.depth))


def on_phantoms(count: int, seed: int, preset: str) -> dict[str, Any]:
    """What each rule sees of the lesions of phantoms."""
    prepare = Compose([SlicePlaned(["image", "lesion"]), HUWindowsd("image", [WINDOW])])
    volumes = []
    for number in range(count):
        phantom = generate_phantom(phantom_seed(seed, number), PRESETS[preset])
        if phantom.lesions:
            data = prepare({"image": load_phantom(phantom), "lesion": load_phantom(phantom, phantom.lesion_mask)})
            shown = data["lesion"].as_tensor()[0].flatten(0, 1).any(0).nonzero().flatten().tolist()
            volumes.append((stack_of(data["image"]), set(shown), phantom.lesions[0].diameter_mm))
    small = np.array([diameter < 15 for *_, diameter in volumes])
    rows = []
    for share in SHARES:
        for name, rule in RULES.items():
            kept = [rule.at_most(one, allowed(one, share)).choose(one).kept for one, *_ in volumes]
            seen = np.array([bool(shown & set(one)) for one, (_, shown, _) in zip(kept, volumes, strict=True)])
            slices = sum(len(shown & set(one)) for one, (_, shown, _) in zip(kept, volumes, strict=True))
            rows.append(
                {
                    "share": share,
                    "rule": name,
                    "kept": _mean([len(one) / stack.depth for one, (stack, *_) in zip(kept, volumes, strict=True)]),
                    "lesions_below_15_mm": _mean(seen[small]),
                    "lesions_from_15_mm": _mean(seen[~small]),
                    "lesion_slices": round(slices / sum(len(shown) for _, shown, _ in volumes), 4),
                    "largest_gap_mm": _mean(
                        [stack.largest_gap(one).length_mm for one, (stack, *_) in zip(kept, volumes, strict=True)]
                    ),
                }
            )
        print(f"phantoms: {share:.0%} done", flush=True)
    facts = {"count": count, "seed": seed, "preset": preset, "below_15_mm": int(small.sum())}
    return {**facts, "from_15_mm": int((~small).sum()), "rows": rows}


def on_real(folder: Path) -> dict[str, Any]:
    """Which stretches of real CTs each rule leaves out."""
    results = {}
    for title, name in REAL.items():
        image = HUWindows([WINDOW])(SlicePlane()(LoadVolume()(folder / name)))
        stack, rows = stack_of(image), []
        for share in SHARES:
            for rule_name, rule in RULES.items():
                if rule_name.startswith("anchor, guard"):
                    continue  # sees lesions, but says nothing of stretches
                kept = rule.at_most(stack, allowed(stack, share)).choose(stack).kept
                met = {f"{ball:g}": round(balls_met(stack.positions_mm, kept, ball), 4) for ball in BALLS_MM}
                gap = round(stack.largest_gap(kept).length_mm, 2)
                rows.append({"share": share, "rule": rule_name, "kept": len(kept), "met": met, "largest_gap_mm": gap})
            print(f"{title}: {share:.0%} done", flush=True)
        extent = round(stack.distance_mm(0, stack.depth - 1), 1)
        results[title] = {"slices": stack.depth, "extent_mm": extent, "rows": rows}
    return results


def balls_met(positions_mm: Sequence[float], kept: Sequence[int], diameter: float) -> float:
    """Share of the balls of a diameter inside the stack that a kept slice meets, their centers spread evenly."""
    low, high = min(positions_mm) + diameter / 2, max(positions_mm) - diameter / 2
    if high <= low:
        return 1.0
    planes = sorted(positions_mm[index] for index in kept)
    bounds = [-np.inf, *planes, np.inf]
    missed = 0.0
    for before, after in pairwise(bounds):
        missed += max(0.0, min(after - diameter / 2, high) - max(before + diameter / 2, low))
    return float(1 - missed / (high - low))


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)


def machine() -> dict[str, Any]:
    """What the numbers were computed on; none of them is a time."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return {"cpu": name, "cores": os.cpu_count(), "torch": torch.__version__.partition("+")[0]}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the real volumes; left out without one")
    parser.add_argument("--count", type=int, default=60, help="number of phantoms")
    parser.add_argument("--seed", type=int, default=1414)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="small")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/slice_rules.json"))
    parser.add_argument("--page", type=Path, help="write the page from --out instead, e.g. docs/slice_rules.md")
    options = parser.parse_args()
    if options.page:
        others = [options.out.with_name(name) for name in ("slice_rule_answers.json", "slices.json")]
        found = [json.loads(path.read_text(encoding="utf-8")) if path.exists() else None for path in others]
        options.page.write_text(page(json.loads(options.out.read_text(encoding="utf-8")), *found), encoding="utf-8")
        return
    torch.set_num_threads(1)
    results = {
        "machine": machine(),
        "window_hu": list(WINDOW),
        "phantoms": on_phantoms(options.count, options.seed, options.preset),
        "real": on_real(options.data) if options.data else {},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(page(results))


if __name__ == "__main__":
    main()
