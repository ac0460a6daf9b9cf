# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure token selectors on a real encoder and real anatomy: DINOv2-small at 518 pixels on two CTs and MR crops.

    python benchmarks/real_encoder.py ../shared/models/dinov2_small ../shared/data
    python benchmarks/real_encoder.py --page docs

At each share of the tokens, every selector keeps as many tokens of each slice. Measured are the share of the organs'
tokens that it keeps, and how well a linear probe on the kept tokens tells which organs a slice shows: logistic
regression on all tokens of the other folds, whose highest probability over the kept tokens is a slice's score for an
organ. Folds are blocks of slices on the CTs and volumes on the crops; 95 % intervals are drawn over the same groups.
Merging counts where a selector merges. Features are computed once and stay in the work folder; an interrupted run
goes on with the next slice, and with the next data set; selectors that are added are measured alone. There is no
language model here, the volumes are few, and masks are a model's, or approximate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_encoder_features import encode_all, sources
from real_encoder_measures import Probe, fold_of, mean_area, ratio
from real_encoder_page import write_page
from real_encoder_selectors import SELECTORS, Features, in_body, read_features
from slice_rules import machine
from transformers import Dinov2Model

SHARES = (0.02, 0.05, 0.1, 0.2)
LEAST_SLICES = 3  # an organ counts for the probe where it is present, and absent, in as many slices


def fit_probes(volumes: list[Features], organs: list[int]) -> list[Probe]:
    """One probe for each fold, fitted on the tokens of the other folds."""
    groups = torch.cat([one.group for one in volumes])
    fold = fold_of(groups)
    tokens = torch.cat([one.tokens for one in volumes])
    names = torch.zeros(max(organs) + 1, dtype=torch.long)
    names[organs] = torch.arange(1, len(organs) + 1)
    classes = torch.cat([names[one.organs] for one in volumes])
    return [
        Probe(tokens[fold != one].flatten(0, 1), classes[fold != one].flatten(), len(organs) + 1)
        for one in range(int(fold.max()) + 1)
    ]


def slice_scores(tokens: torch.Tensor, keep: torch.Tensor, fold: torch.Tensor, probes: list[Probe]) -> np.ndarray:
    """The highest probability of each organ over the kept tokens of each slice, ``(S, K)``."""
    scores = []
    for one, mask, number in zip(tokens, keep, fold.tolist(), strict=True):
        scores.append(probes[number](one[mask])[:, 1:].amax(0))
    return torch.stack(scores).numpy()


def counts_of(keep: torch.Tensor, organs: torch.Tensor, names: list[int]) -> np.ndarray:
    """Kept tokens of each organ in each slice, ``(S, K)``."""
    return torch.stack([(keep & (organs == name)).sum(1) for name in names], 1).double().numpy()


def measure(volumes: list[Features], known: list[dict[str, Any]]) -> dict[str, Any]:
    """All selectors at all shares on one data set; rows that are known are not measured again."""
    measured = {(row["selector"], row["share"]): row for row in known}
    organs, tokens, group = (
        torch.cat([getattr(one, name) for one in volumes]) for name in ("organs", "tokens", "group")
    )
    names = [int(one) for one in organs.unique() if one]
    groups, fold = group.numpy(), fold_of(group)
    every = counts_of(torch.ones_like(organs, dtype=torch.bool), organs, names)
    present = every > 0
    told = (present.sum(0) >= LEAST_SLICES) & ((~present).sum(0) >= LEAST_SLICES)
    probes = fit_probes(volumes, names)
    body = torch.cat([in_body(one) for one in volumes])
    sinks = [(one.received[:, -1] > 3) & (one.organs == 0) for one in volumes]
    facts = {
        "volumes": len(volumes),
        "slices": len(organs),
        "groups": len(set(groups.tolist())),
        "body_share": round(float(body.double().mean()), 4),
        "organ_share": round(float((organs > 0).double().mean()), 4),
        "organs": {str(name): int(count) for name, count in zip(names, every.sum(0), strict=True)},
        "told": [name for name, one in zip(names, told, strict=True) if one],
        "high_attention_without_organ": round(float(torch.cat(sinks).double().mean()), 5),
    }
    whole = torch.ones_like(body)
    area = mean_area(slice_scores(tokens, whole, fold, probes)[:, told], present[:, told], groups)
    rows = [{"selector": "unpruned", "share": 1.0, "tokens": 1.0, "probe": _rounded(area)}]
    for share in SHARES:
        expected = expected_shares(organs, body, share)
        for name, select in SELECTORS.items():
            if (name, share) in measured:
                rows.append(measured[name, share])
                continue
            found = [select(one, share) for one in volumes]
            keep = torch.cat([mask for mask, _ in found])
            pairs = zip(volumes, found, strict=True)
            values = torch.cat([one.tokens if new is None else new for one, (_, new) in pairs])
            kept = counts_of(keep, organs, names)
            area = mean_area(slice_scores(values, keep, fold, probes)[:, told], present[:, told], groups)
            row = {"selector": name, "share": share, "tokens": round(float(keep.double().mean()), 4)}
            row["organ_tokens"] = _rounded(ratio(kept.sum(1), every.sum(1), groups))
            row["each_organ"] = dict(zip(map(str, names), _shares(kept, every), strict=True))
            for against, chance in expected.items():
                row[against] = _rounded([one / chance for one in row["organ_tokens"]])
            rows.append({**row, "probe": _rounded(area)})
        print(f"{share:.0%}: done", flush=True)
    return {**facts, "rows": rows}


def expected_shares(organs: torch.Tensor, body: torch.Tensor, share: float) -> dict[str, float]:
    """Share of the organs' tokens that random tokens keep on average, of the whole slice and of the body.

    Args:
        organs: ``(S, M)``, 0 where there is none.
        body: bool ``(S, M)``, with a token in each slice.
        share: of a slice's tokens that are kept.
    """
    count, every = int(share * organs.shape[1]), (organs > 0).sum()
    drawn = (count / body.sum(1)).clamp(max=1)
    inside = (drawn * ((organs > 0) & body).sum(1)).sum()
    whole = count / organs.shape[1]
    return {"against_random": whole, "against_random_in_body": float(inside / every)}


def _shares(kept: np.ndarray, every: np.ndarray) -> list[float]:
    return [round(float(one), 4) for one in kept.sum(0) / every.sum(0)]


def _rounded(values: list[float]) -> list[float]:
    return [round(one, 4) for one in values]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="folder of DINOv2-small")
    parser.add_argument("data", type=Path, nargs="?", help="folder of the real volumes")
    parser.add_argument("--work", type=Path, default=Path("out/real_encoder"), help="folder of the features")
    parser.add_argument("--crop_step", type=int, default=1, help="take every so-manieth crop")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real_encoder.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/evidence_encoder_sinks.png"))
    parser.add_argument("--page", type=Path, help="write the page into this folder from --out instead")
    options = parser.parse_args()
    if options.page:
        write_page(json.loads(options.out.read_text(encoding="utf-8")), options.page)
        return
    if options.model is None or options.data is None:
        parser.error("give the folders of the model and of the real volumes")
    torch.set_num_threads(1)
    model = Dinov2Model.from_pretrained(options.model, dtype=torch.float32).eval()
    found = {"machine": machine(), "sets": {}}
    if options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
    for name, volumes in sources(options.data, options.crop_step).items():
        encode_all(model, volumes, options.work / name)
        known = found["sets"].get(name, {}).get("rows", [])
        if len(known) == 1 + len(SHARES) * len(SELECTORS):  # the first is that of all tokens
            continue
        features = [read_features(one, number, options.work / name) for number, one in enumerate(volumes)]
        found["sets"][name] = measure(features, known)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    from real_encoder_picture import draw_sinks  # matplotlib, where it is needed

    draw_sinks(sources(options.data, options.crop_step), options.work, options.picture)


if __name__ == "__main__":
    main()
