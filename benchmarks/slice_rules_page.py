# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the slice rules' comparison, from its JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from slices_page import head, tables

_CLASSES = (("lesions_below_15_mm", "lesions below 15 mm"), ("lesions_from_15_mm", "lesions of 15 mm and more"))


def page(results: dict[str, Any], answers: dict[str, Any] | None = None, slices: dict[str, Any] | None = None) -> str:
    """Return the page in Markdown.

    Args:
        results: of ``slice_rules.py``.
        answers: of ``slice_rule_answers.py``.
        slices: of ``slices.py``.
    """
    phantoms, machine = results["phantoms"], results["machine"]
    text = [
        "# Slice rules at equal numbers of slices",
        "",
        "A slice rule decides which slices of a volume are encoded "
        "([concepts](concepts.md#slices-the-filter-before-the-encoder)). Here each rule gets the same number of slices "
        "of a volume and finds its own parameter for it. A rule may keep fewer, so the share that it kept is stated.",
        "",
        f"Made by `python benchmarks/slice_rules.py ../shared/data --count {phantoms['count']} --seed "
        f"{phantoms['seed']}` and written by `python benchmarks/slice_rules.py --page docs/slice_rules.md`; CPU "
        f"{machine['cpu']}, torch {machine['torch']}. No number here is a time.",
        "",
        *(head(slices) if slices else []),
        *_findings(results),
        "## Phantoms",
        "",
        f"{phantoms['count']} synthetic CT phantoms, `--preset {phantoms['preset']}`, with {phantoms['below_15_mm']} "
        f"lesions below 15 mm and {phantoms['from_15_mm']} of 15 mm and more. A lesion is met where at least one of "
        "the slices that show it is kept; with so few small lesions, one is "
        f"{100 / phantoms['below_15_mm']:.0f} %. The largest gap is a mean over the volumes, their ends included. "
        "Slices lie about 5 mm apart, so that `evenly_spaced_mm`, which keeps the fewest slices for a gap, leaves some "
        "of its number unused.",
        "",
    ]
    for share in _shares(phantoms["rows"]):
        text += _phantom_table(share, [row for row in phantoms["rows"] if row["share"] == share])
    if answers:
        text += _answers(answers)
    if results["real"]:
        text += _real(results["real"])
    if slices:
        text += tables(slices)
    return "\n".join(text).rstrip() + "\n"


def _shares(rows: Sequence[dict[str, Any]]) -> list[float]:
    return sorted({row["share"] for row in rows}, reverse=True)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"


def _findings(results: dict[str, Any]) -> list[str]:
    """Which rule wins where, in words."""
    phantoms = results["phantoms"]
    rows = phantoms["rows"]
    text = ["## Which rule wins", "", f"- **Over all shares** (phantoms), lesions met: {_overall(phantoms)}."]
    for share in _shares(rows):
        own = [row for row in rows if row["share"] == share]
        parts = []
        for field, title in _CLASSES:
            best = max(row[field] for row in own)
            (paper,) = (row[field] for row in own if row["rule"] == "anchor")
            winners = _rules(row for row in own if row[field] == best)
            parts.append(f"{title}, {winners} with {_percent(best)} % (`anchor`, the paper's: {_percent(paper)} %)")
        text.append(f"- **{_percent(share)} % of the slices** (phantoms): " + "; ".join(parts) + ".")
    for title, volume in results["real"].items():
        parts = []
        for share in _shares(volume["rows"]):
            own = [row for row in volume["rows"] if row["share"] == share]
            best = min(row["largest_gap_mm"] for row in own)
            winners = _rules(row for row in own if row["largest_gap_mm"] == best)
            parts.append(f"{_percent(share)} % of the slices, {winners} with {best:.1f} mm")
        text.append(f"- **Smallest of the largest gaps** (CT, {title}): " + "; ".join(parts) + ".")
    return [*text, ""]


def _rules(rows: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"`{row['rule']}`" for row in rows)


def _overall(phantoms: dict[str, Any]) -> str:
    """Every rule's share of lesions met, a mean over the shares of slices, best first."""
    counts = [phantoms[name] for name in ("below_15_mm", "from_15_mm")]
    met: dict[str, list[float]] = {}
    for row in phantoms["rows"]:
        parts = [row[field] * count for (field, _), count in zip(_CLASSES, counts, strict=True)]
        met.setdefault(row["rule"], []).append(sum(parts) / sum(counts))
    means = sorted(((sum(values) / len(values), rule) for rule, values in met.items()), reverse=True)
    return ", ".join(f"`{rule}` {_percent(mean)} %" for mean, rule in means)


def _phantom_table(share: float, rows: Sequence[dict[str, Any]]) -> list[str]:
    text = [
        f"### {_percent(share)} % of the slices",
        "",
        "| rule | slices kept, % | lesions below 15 mm met, % | lesions of 15 mm and more met, % | lesion slices kept, "
        "% | largest gap, mm |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [row[name] for name in ("kept", "lesions_below_15_mm", "lesions_from_15_mm", "lesion_slices")]
        text.append(f"| {row['rule']} | " + " | ".join(map(_percent, shares)) + f" | {row['largest_gap_mm']:.1f} |")
    return [*text, ""]


def _answers(answers: dict[str, Any]) -> list[str]:
    """A table of right answers: a row a rule, a column a number of slices."""
    rows = answers["rows"]
    (every,) = (row for row in rows if row["slices"] is None)
    counts = sorted({row["slices"] for row in rows} - {None}, reverse=True)
    text = [
        "## Answers",
        "",
        f"Right answers in percent, with 95 % intervals, of the small {answers['family']} model to {every['items']} "
        f"closed questions about {answers['count']} new phantoms of {every['kept']:.0f} slices on average; all tokens "
        f"of the kept slices are given to the model (`python benchmarks/slice_rule_answers.py --count "
        f"{answers['count']} --seed {answers['seed']}`). With all slices: {_interval(every)}. A rule keeps at most the "
        "number of slices, in brackets what it kept on average.",
        "",
        "| rule | " + " | ".join(f"at most {count} slices" for count in counts) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for rule in dict.fromkeys(row["rule"] for row in rows if row["slices"] is not None):
        own = {row["slices"]: row for row in rows if row["rule"] == rule}
        cells = [f"{_interval(own[count])} [{own[count]['kept']:.1f}]" for count in counts]
        text.append(f"| {rule} | " + " | ".join(cells) + " |")
    return [*text, ""]


def _interval(row: dict[str, Any]) -> str:
    return f"{row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def _real(real: dict[str, Any]) -> list[str]:
    """A table a volume: the share of balls met, and the largest gap, at each share of the slices."""
    text = [
        "## Real CTs",
        "",
        "Balls of 5, 10 and 20 mm that a kept slice meets, in percent of all that lie inside the volume, and the "
        "largest gap in mm.",
        "",
    ]
    for title, volume in real.items():
        shares = _shares(volume["rows"])
        text += [
            f"### CT, {title}: {volume['slices']} slices over {volume['extent_mm']:g} mm",
            "",
            "| rule | " + " | ".join(f"{_percent(share)} %: 5 / 10 / 20 mm, gap" for share in shares) + " |",
            "|---|" + "---|" * len(shares),
        ]
        for rule in dict.fromkeys(row["rule"] for row in volume["rows"]):
            own = {row["share"]: row for row in volume["rows"] if row["rule"] == rule}
            cells = [
                " / ".join(_percent(value) for value in own[share]["met"].values())
                + f", {own[share]['largest_gap_mm']:.1f}"
                for share in shares
            ]
            text.append(f"| {rule} | " + " | ".join(cells) + " |")
        text.append("")
    return text
