# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the real encoder, from its JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "evidence_encoder.md"
PICTURE = "evidence_encoder_sinks.png"
SETS = {
    "ct_torso": "CT of chest to abdomen, 3 mm (masks of 59 organs, a model's predictions)",
    "ct_full": "CT of the whole torso, 1.5 mm, every twelfth slice (masks of 12 organs, approximate at the edges)",
    "mr_hippocampus": "MR crops of the hippocampus, one slice of each (two labels)",
}
LIMITS = (
    "Few volumes, approximate masks, and no language model: these figures say where tokens lie, not what a model "
    "answers. DINOv2 was pretrained on natural images, and this copy of it may have been fine-tuned for saliency."
)
RANDOM, BODY_RANDOM = "random_tokens", "body, random"
#: selectors that need what a pruner does not get, so that they are bounds and no candidates
BOUNDS = ("body, brightness",)
WANTED, WANTED_IN_BODY, AT = 2.0, 1.3, 0.1


def rows_at(one: dict[str, Any], share: float) -> list[dict[str, Any]]:
    """Rows of all selectors at one share."""
    return [row for row in one["rows"] if row["share"] == share]


def best(one: dict[str, Any], share: float) -> dict[str, Any]:
    """The selector that keeps most organ tokens at a share, those of :data:`BOUNDS` left out."""
    return max((row for row in rows_at(one, share) if row["selector"] not in BOUNDS), key=_organ_tokens)


def _organ_tokens(row: dict[str, Any]) -> float:
    return float(row["organ_tokens"][0])


def times(values: list[float]) -> str:
    """A ratio with its interval."""
    return f"{values[0]:.2f}× ({values[1]:.2f} to {values[2]:.2f})"


def percent(values: list[float]) -> str:
    """A share with its interval, in percent."""
    return f"{100 * values[0]:.1f} ({100 * values[1]:.1f} to {100 * values[2]:.1f})"


def must_hold(found: dict[str, Any], selector: str = "body, nucleus") -> list[str]:
    """Whether one selector keeps as many organ tokens as wanted, one line a data set."""
    lines = []
    for name, one in found["sets"].items():
        (row,) = (each for each in rows_at(one, AT) if each["selector"] == selector)
        ours, inside = row["against_random"], row["against_random_in_body"]
        held = ours[0] >= WANTED and inside[0] >= WANTED_IN_BODY
        top = best(one, AT)
        lines.append(
            f"- **{name}**: `{selector}` keeps {times(ours)} the organ tokens of random tokens and {times(inside)} "
            f"those of random body tokens: {'met' if held else 'missed'} (wanted: {WANTED:g}× and "
            f"{WANTED_IN_BODY:g}×; no selector can exceed {min(1 / AT, 1 / one['organ_share']):.1f}×). Best of all "
            f"here: `{top['selector']}`, {times(top['against_random'])} and {times(top['against_random_in_body'])}."
        )
    return lines


def page(found: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    machine = found["machine"]
    text = [
        "# Token selection on a real encoder",
        "",
        "DINOv2-small at 518 pixels (37 × 37 tokens a slice) on real slices: which tokens each selector keeps, and "
        "what can be told from them. The soft-tissue window for CT, the 1st to 99th percentile for MR.",
        "",
        f"**Limits.** {LIMITS}",
        "",
        "Made by `python benchmarks/real_encoder.py ../shared/models/dinov2_small ../shared/data`, written by `python "
        f"benchmarks/real_encoder.py --page docs`; {machine['cpu']}, {machine['cores']} cores, torch "
        f"{machine['torch']}. No number here is a time."
        + "".join(f" Not measured yet: {SETS[name]}." for name in SETS if name not in found["sets"]),
        "",
        "## Organ tokens at 10 %",
        "",
        *must_hold(found),
        "",
        "## Sinks",
        "",
        f"![Attention of the middle and the last block, and the tokens that it selects]({PICTURE})",
        "",
        "Left to right: slice with the outline of its organs; attention that tokens receive in the middle and in the "
        "last block (1 is uniform, the scale ends at 4); the tenth of the tokens with the highest attention in the "
        "last block, of the whole slice and within the body; red tokens belong to no organ that has a mask. "
        "Those in the air are sinks. " + LIMITS,
        "",
        "## All figures",
        "",
        "A token belongs to the organ that covers most of it, if that is a quarter or more. *Organ tokens*: the share "
        "of all organs' tokens that are kept. *Against random* and *in the body*: the same as a ratio to what random "
        "tokens of the slice, and of the body, keep on average. *Probe*: mean area under the ROC curve, in percent, "
        "of telling the slices that show an organ from those that do not. Brackets: 95 % intervals, drawn over blocks "
        "of slices (27 mm on ct_torso, 54 mm on ct_full) or over volumes; those of the probe lie high, since a sample "
        "leaves organs out. `body, …` selects among body tokens alone; the body is known from HU, so that encoders "
        "need nothing for it. `nucleus` has τ 1 under a limit, without merging: the highest received attention of "
        "each slice. `body, brightness` looks at the window's intensity, which no pruner gets, and is no candidate. "
        "`cdpruner` needs a question, and is not here. `rare_tokens` and `nucleus, one for the volume` share the "
        "number among all slices of a volume; `body, rare tokens` takes as many of each slice, by their "
        "distance to the body tokens of the whole volume.",
        "",
    ]
    for name, one in found["sets"].items():
        text += _set(name, one)
    return "\n".join(text).rstrip() + "\n"


def _set(name: str, one: dict[str, Any]) -> list[str]:
    (whole,) = (row for row in one["rows"] if row["selector"] == "unpruned")
    text = [
        f"### {name}",
        "",
        f"{SETS[name]}: {one['slices']} slices of {one['volumes']} volume{'s' * (one['volumes'] > 1)}, in "
        f"{one['groups']} groups; {100 * one['body_share']:.0f} % of the tokens lie in the body, "
        f"{100 * one['organ_share']:.1f} % in an organ. The probe tells {len(one['told'])} organs; with all tokens: "
        f"{percent(whole['probe'])}. {LIMITS}",
        "",
    ]
    for share in dict.fromkeys(row["share"] for row in one["rows"] if row["share"] < 1):
        text += [
            "<details>",
            f"<summary>{name}, {100 * share:g} % of the tokens</summary>",
            "",
            "| selector | tokens kept, % | organ tokens kept, % | against random | in the body | probe, % |",
            "|---|---|---|---|---|---|",
        ]
        for row in sorted(rows_at(one, share), key=_organ_tokens, reverse=True):
            cells = [row["selector"], f"{100 * row['tokens']:.1f}", percent(row["organ_tokens"])]
            cells += [times(row["against_random"]), times(row["against_random_in_body"]), percent(row["probe"])]
            text.append("| " + " | ".join(cells) + " |")
        text += ["", "</details>", ""]
    return [*text, *_organs(name, one)]


def _organs(name: str, one: dict[str, Any]) -> list[str]:
    """Each organ's share at 10 %, of a few selectors."""
    chosen = [RANDOM, BODY_RANDOM, "nucleus", "body, nucleus", "body, attention and coverage", "divprune"]
    rows = {row["selector"]: row for row in rows_at(one, AT)}
    text = [
        "<details>",
        f"<summary>{name}, each organ at 10 % of the tokens</summary>",
        "",
        "Share of an organ's tokens that are kept, in percent. Numbers are those of the label maps.",
        "",
        "| organ | tokens | " + " | ".join(chosen) + " |",
        "|---" * (2 + len(chosen)) + "|",
    ]
    for organ, count in one["organs"].items():
        cells = [f"{100 * rows[selector]['each_organ'][organ]:.0f}" for selector in chosen]
        text.append(f"| {organ} | {count} | " + " | ".join(cells) + " |")
    return [*text, "", "</details>", ""]


def write_page(found: dict[str, Any], folder: Path) -> None:
    """Write the page."""
    (folder / NAME).write_text(page(found), encoding="utf-8")
