# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Compare the slice rules by answers: right answers of a small trained model at equal numbers of slices.

    python benchmarks/slice_rule_answers.py --count 40 --seed 1515
    python benchmarks/slice_rules.py --page docs/slice_rules.md

Every rule finds its own parameter for each phantom. All tokens of the kept slices reach the language model, so that
only the choice of slices differs. Writes a JSON file; an interrupted run resumes from its predictions. Everything is
synthetic: a small model, trained and evaluated on phantoms.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from evidence import FAMILIES, evaluator_arguments
from slice_rules import RULES, machine

from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.evaluation import BenchmarkEvaluator, Variant
from monai_medpruner.transforms import InterSliceAnchorFilterd, SelectSlicesd, TimedCompose

SLICES = (24, 12, 6)


def variants() -> list[Variant]:
    """Return all slices, and each rule at each number of slices."""
    every = TimedCompose("filter", InterSliceAnchorFilterd("image", None))
    found = [Variant("all slices", every, None, {"slices": None, "rule": "all slices"})]
    for count in SLICES:
        for name, rule in RULES.items():
            chosen = TimedCompose("filter", SelectSlicesd("image", rule, count))
            found.append(Variant(f"{name}, {count} slices", chosen, None, {"slices": count, "rule": name}))
    return found


def result(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the JSON file: right answers with their interval, in percent."""
    metrics = row["metrics"]
    accuracy = {name: round(metrics["micro"]["accuracy"][name], 2) for name in ("value", "low", "high")}
    kept = metrics["slices"]["kept"]["mean"]
    return {"slices": row["slices"], "rule": row["rule"], "kept": kept, "items": metrics["items"], **accuracy}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default=FAMILIES[0])
    parser.add_argument("--count", type=int, default=40, help="number of phantoms, about 4.3 questions each")
    parser.add_argument("--seed", type=int, default=1515)
    parser.add_argument("--work", type=Path, default=Path("out/slice_rule_answers"), help="phantoms and predictions")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/slice_rule_answers.json"))
    options = parser.parse_args()
    logging.getLogger("monai_medpruner").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    phantom_command(options.count, options.seed, options.work / "phantoms", PRESETS["small"])
    shared = evaluator_arguments(options.family, options.work / "phantoms", None)
    rows = BenchmarkEvaluator(output_dir=options.work / options.family, variants=variants(), **shared).run()
    facts = {"family": options.family, "count": options.count, "seed": options.seed, "machine": machine()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**facts, "rows": [result(row) for row in rows]}, indent=1)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
