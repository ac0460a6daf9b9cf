# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How a budget of tokens is best shared between slices and tokens: right answers and seen lesions on phantoms.

    medpruner phantom --count 40 --seed 77 --preset small --out phantoms
    python benchmarks/budget_split.py phantoms out [FAMILY ...]

Writes ``out/budget_split.json``. Each row is a share of the tokens, spread over a share of the slices that are evenly
spaced; the last rows of a family are the default (the square root of the share, and no gap above 10 mm), the paper's
method under the same budget, and all tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evidence_recall import lesion_recall

from monai_medpruner.bundles import open_bundle
from monai_medpruner.settings import bundle_folders

FAMILIES = ("qwen3_vl", "video_llama_3", "gemma3")
SHARES = (0.05, 0.1)
SLICES = (0.125, 0.25, 0.5, 1.0)


def row(data: Path, output: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the phantom bundle with some settings."""
    folder = bundle_folders()["medpruner_phantom"]
    given = {"dataset_dir": str(data), "output_dir": str(output / name), "task": "closed", "device": "cpu", **settings}
    (result,) = open_bundle(folder, given, configs=("inference", "evaluate")).evaluator.run()
    lines = (output / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line["retention"] for line in map(json.loads, lines) if line["status"] == "ok"]
    shares = {key: sum(one[key] for one in kept) / len(kept) for key in kept[0]}
    largest = max(one["overall"] for one in kept)
    accuracy = result["metrics"]["micro"]["accuracy"]
    answers = {field: round(accuracy[field], 2) for field in ("value", "low", "high", "items")}
    return {"name": name, **settings, "accuracy": answers, **shares, "largest": largest}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every split, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the phantoms")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("families", nargs="*", default=FAMILIES, help="default: all trained families")
    options = parser.parse_args(arguments)
    data, output, families = options.data, options.output, options.families
    rows = []
    for family in families:
        splits = {f"{family}_{share:g}_{slices:g}": {"retention": share, "slice_ratio": slices}
                  for share in SHARES for slices in SLICES}  # fmt: skip
        splits |= {f"{family}_{share:g}_default": {"retention": share} for share in SHARES}
        splits |= {f"{family}_{share:g}_paper": {"retention": share, "gamma": 0.01, "tau": 0.1} for share in SHARES}
        splits[f"{family}_all"] = {"gamma": None, "pruner": "none"}
        for name, settings in splits.items():
            rows.append(row(data, output, name, {"family": family, **settings}))
        recall = lesion_recall(output, data)
        for one in rows:
            one["lesions"] = recall[one["name"]]
        (output / "budget_split.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
