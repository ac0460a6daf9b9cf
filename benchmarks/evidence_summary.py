# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Write docs/evidence.md and its figures: what the benchmarks found, on one page, from their results.

python benchmarks/evidence_summary.py --check
python benchmarks/evidence_summary.py --write
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from evidence_figures import draw_organs, draw_slices
from real_encoder_page import (
    AT,
    BODY_RANDOM,
    LIMITS,
    RANDOM,
    WANTED,
    WANTED_IN_BODY,
    best,
    percent,
    rows_at,
    times,
)
from slices_page import EVEN, FILTER, verdict

RESULTS = Path(__file__).resolve().parent / "results"
DOCS = RESULTS.parents[1] / "docs"
NAMES = ("slices", "slice_rule_answers", "real_encoder", "findings", "local_contrast_organs")
SLICE_FIGURE, ORGAN_FIGURE = "evidence_slices.png", "evidence_organs.png"
SINK_FIGURE = "evidence_encoder_sinks.png"
ATTENTION, WHOLE_SLICE, COVERAGE = "body, nucleus", "nucleus", "body, attention and coverage"
RARE = "body, rare tokens"
SHARES = (0.02, 0.05, 0.1, 0.2)


def results() -> dict[str, Any]:
    """The committed results, by name."""
    return {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}


def glance(phantoms: str) -> list[str]:
    """The table of the phantoms' page that compares the bundle's settings with baselines."""
    part = phantoms.partition("## At a glance")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("|")]


def selector(one: dict[str, Any], name: str) -> dict[str, Any]:
    """A selector's row at 10 % of the tokens."""
    (row,) = (each for each in rows_at(one, AT) if each["selector"] == name)
    return row


def page(found: dict[str, Any], phantoms: str) -> str:
    """Return the page in Markdown.

    Args:
        found: of :func:`results`.
        phantoms: text of the page of the phantoms.
    """
    return "\n".join(
        [
            "# Evidence",
            "",
            "Which slices and which tokens to keep, and why. One page; the tables are behind the links. Nothing here "
            "was measured with a large model on patients: there are phantoms, two CTs, MR crops and small models. "
            "Measure on your own data before you rely on it ([evaluation](evaluation.md)).",
            "",
            *_slices(found),
            *_tokens(found["real_encoder"]),
            *_small_findings(found),
            *_answers(phantoms),
            *_use(found["real_encoder"], found["local_contrast_organs"]),
        ]
    )


def _slices(found: dict[str, Any]) -> list[str]:
    (every,) = (row for row in found["slice_rule_answers"]["rows"] if row["slices"] is None)
    twelve = {row["rule"]: row for row in found["slice_rule_answers"]["rows"] if row["slices"] == 12}
    return [
        "## Slices: choose them by distance",
        "",
        verdict(found["slices"]),
        "",
        f"![Lesions met, over the number of slices, for three rules]({SLICE_FIGURE})",
        "",
        "Lesions of phantoms with at least one kept slice, over the number of slices that were kept. Soft-tissue "
        "window.",
        "",
        f"Answers agree: with at most 12 slices, a small model gives {twelve[EVEN]['value']:.0f} % right answers with "
        f"evenly spaced slices ({twelve[EVEN]['low']:.0f} to {twelve[EVEN]['high']:.0f}), and "
        f"{twelve[FILTER]['value']:.0f} % with the filter ({twelve[FILTER]['low']:.0f} to "
        f"{twelve[FILTER]['high']:.0f}); with all slices {every['value']:.0f} %. *Limits: phantoms, each with one "
        "lesion or none, and few.* Every rule, number, window and spacing, real volumes, and how many slices a "
        "spacing needs: [slices](slice_rules.md).",
        "",
    ]


def _tokens(found: dict[str, Any]) -> list[str]:
    text = [
        "## Tokens: attention of the last block, within the body",
        "",
        f"On a real encoder (DINOv2-small), at {100 * AT:.0f} % of the tokens:",
        "",
        "| images | attention in the body, against random tokens | against random tokens of the body | attention "
        "without a body mask, against random tokens | best selector measured |",
        "|---|---|---|---|---|",
    ]
    for name, one in found["sets"].items():
        ours, whole, top = selector(one, ATTENTION), selector(one, WHOLE_SLICE), best(one, AT)
        cells = [name, times(ours["against_random"]), times(ours["against_random_in_body"])]
        cells += [times(whole["against_random"]), f"{top['selector']}, {times(top['against_random'])}"]
        text.append("| " + " | ".join(cells) + " |")
    held = [
        name
        for name, one in found["sets"].items()
        if selector(one, ATTENTION)["against_random"][0] >= WANTED
        and selector(one, ATTENTION)["against_random_in_body"][0] >= WANTED_IN_BODY
    ]
    missed = [name for name in found["sets"] if name not in held]
    return [
        *text,
        "",
        f"Wanted were {WANTED:g}× and {WANTED_IN_BODY:g}×. The point estimates: "
        + (f"attention within the body reaches both on {_list(held)}" if held else "attention reaches both on no set")
        + (f", and misses on {_list(missed)}." if missed else "."),
        "",
        f"![Organ tokens kept, over the share of tokens, for several selectors]({ORGAN_FIGURE})",
        "",
        f"Share of the organs' tokens that each selector keeps. *Limits: {LIMITS}*",
        "",
        f"![Attention of two blocks, and the tokens with the highest attention]({SINK_FIGURE})",
        "",
        "The attention of the middle block follows the outlines of the body and the table. That of the last block "
        "lies inside the body, and on patches of air: the sinks, red tokens in the upper left of the fourth column. A "
        "body mask removes them. Red tokens inside the body show no organ that has a mask; ct_full has masks of 12 "
        f"organs. *Limits: {LIMITS}*",
        "",
        *_probe(found),
        "Every selector, budget and organ: [real encoder](evidence_encoder.md).",
        "",
    ]


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _small_findings(found: dict[str, Any]) -> list[str]:
    families = found["findings"]["families"]
    first, gemma = families["qwen3_vl"], families["gemma3"]
    right = {name: one["all"]["mean"] for name, one in first["accuracy"].items()}
    lines = []
    for name, family in (("Qwen3-VL", first), ("Gemma 3", gemma)):
        at = family["comparison"]["0.05"]
        ours, rare = at["local contrast"], at["rare tokens"]
        lines += [
            f"- {name}, {family['accuracy']['unpruned']['all']['mean']:.1f} % with all tokens. Received attention "
            f"against random tokens: {_points(at['received attention']['minus random'])}. Local contrast against "
            f"received attention: {_points(ours['minus received attention'])}; against random tokens "
            f"{_points(ours['minus random'])}; against average pooling {_points(ours['minus average pooling'])}; "
            f"against all tokens {_points(ours['minus unpruned'])}. Rare tokens against received attention: "
            f"{_points(rare['minus received attention'])}.",
        ]
    return [
        "## Small findings: attention does not find them",
        "",
        f"Small models, trained without labels of tokens, answer {first['questions']} questions about findings of 4 "
        f"to 20 mm in synthetic heads. Right answers of the first with all tokens: {right['unpruned']:.1f} %; with 5 "
        f"% of them, those of the findings, {right['oracle']:.1f} %; with random ones {right['random']:.1f} %. So here "
        "the choice matters. At 5 % of the tokens, with paired 95 % intervals:",
        "",
        *lines,
        "",
        "The pruners were fixed without these phantoms. Local contrast (`local_contrast`) keeps the tokens whose "
        "squares show a small structure that differs from its surroundings, by the pixels alone. Rare tokens "
        "(`rare_tokens`) are those unlike all others of the volume. *Limits: synthetic heads with round findings, "
        "small models that are far from perfect.* Other budgets and all figures: [small "
        "findings](evidence_findings.md).",
        "",
    ]


def _points(difference: dict[str, float]) -> str:
    return f"{difference['mean']:+.1f} points ({difference['low']:+.1f} to {difference['high']:+.1f})"


def _answers(phantoms: str) -> list[str]:
    return [
        "## One lesion, in every token: these answers do not tell selectors apart",
        "",
        "Right answers of small models to closed questions about phantoms, in percent, at the share of tokens kept:",
        "",
        *glance(phantoms),
        "",
        "Attention, random tokens and averages of neighbors answer alike. These encoders were trained to put the "
        "slice's finding into every token, so that any token will do. **Read these figures as proof that pruning "
        "works in such a model, and not as a comparison of selectors.** All configurations: [answers on "
        "phantoms](evidence_phantoms.md).",
        "",
    ]


def _use(found: dict[str, Any], torso: dict[str, Any]) -> list[str]:
    text = [
        "## What to use",
        "",
        "Slices at most 10 mm apart (`max_gap_mm` 10, which presets set); of these, the tokens with the highest "
        "attention of the last block within the body: `medpruner ask --preset fast --crop body`. What stays of the "
        "organs' tokens, in percent; random tokens of the slice keep as much as the budget on average:",
        "",
        "| budget | " + " | ".join(found["sets"]) + " |",
        "|---" * (1 + len(found["sets"])) + "|",
    ]
    for share in SHARES:
        cells = []
        for one in found["sets"].values():
            rows = {row["selector"]: row for row in rows_at(one, share)}
            cells.append(percent(rows[ATTENTION]["organ_tokens"]))
        text.append(f"| {100 * share:g} % | " + " | ".join(cells) + " |")
    return [
        *text,
        "",
        "At 2 % most tokens of an organ are gone with any selector. Small findings may be gone at 5 % too, as shown "
        "above: where they matter, keep more, and look at what was kept in [the "
        "report](how_to.md#look-at-what-was-kept).",
        "",
        "**Looking for small findings, try `--pruner local_contrast`, or `rare_tokens`** on data of your own. They are "
        "not the default: they won with small models on synthetic heads only ([small findings](evidence_findings.md)). "
        f"Local contrast needs a window that clips bone, as a brain window does: on {torso['volume']} in the "
        f"soft-tissue window, {torso['percent']['local contrast, 5 %']['bone']:.0f} % of the tokens that it keeps at 5 "
        "% lie on bone, which has "
        f"{torso['percent']['body']['bone']:.0f} % of the body's (`python "
        "benchmarks/local_contrast_organs.py ../shared/data`). Rare tokens keep fewer "
        f"organ tokens on the real encoder than attention does: against random tokens of the body, at {100 * AT:g} %, "
        f"{_rare_in_body(found)}. A question about an organ's size or shape is one for attention. *Limits: {LIMITS}*",
        "",
    ]


def _rare_in_body(found: dict[str, Any]) -> str:
    rows = {name: row for name, one in found["sets"].items() for row in rows_at(one, AT) if row["selector"] == RARE}
    return ", ".join(f"{times(row['against_random_in_body'])} on {name}" for name, row in rows.items())


def _probe(found: dict[str, Any]) -> list[str]:
    names = {ATTENTION: "attention", COVERAGE: "attention and coverage", BODY_RANDOM: "random"}
    text = [
        "More organ tokens are not more organs. How well a linear probe on the kept tokens tells which organs a slice "
        f"shows, at {100 * AT:g} % of the tokens (mean area under the ROC curve, in percent):",
        "",
        "| images | all tokens | " + " | ".join(f"{name}, in the body" for name in names.values()) + " | random |",
        "|---" * (3 + len(names)) + "|",
    ]
    for title, one in found["sets"].items():
        (whole,) = (row for row in one["rows"] if row["selector"] == "unpruned")
        rows = [whole, *(selector(one, name) for name in (*names, RANDOM))]
        text.append(f"| {title} | " + " | ".join(percent(row["probe"]) for row in rows) + " |")
    return [
        *text,
        "",
        "Attention keeps the most organ tokens, but that does not tell the organs of a slice any better. Facility "
        "location, weighted by attention (*attention and coverage*), is the candidate there; the intervals overlap, "
        f"so it is not a pruner of this package yet. *Limits: {LIMITS}*",
        "",
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where the page is not up to date")
    parser.add_argument("--write", action="store_true", help="write the page and its figures")
    options = parser.parse_args()
    if options.check == options.write:
        parser.error("choose --check or --write")
    found = results()
    text = page(found, (DOCS / "evidence_phantoms.md").read_text(encoding="utf-8"))
    if options.check:
        if (DOCS / "evidence.md").read_text(encoding="utf-8") != text:
            parser.exit(1, "docs/evidence.md is not up to date: run python benchmarks/evidence_summary.py --write\n")
        return
    (DOCS / "evidence.md").write_text(text, encoding="utf-8")
    draw_slices(found["slices"], DOCS / SLICE_FIGURE)
    draw_organs(found["real_encoder"], DOCS / ORGAN_FIGURE)


if __name__ == "__main__":
    main()
