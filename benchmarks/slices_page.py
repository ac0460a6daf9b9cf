# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What slices.py measured, as parts of the page of the slice rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]
FILTER, EVEN, EVEN_MM = "anchor", "evenly_spaced", "evenly_spaced_mm"
BALL_MM = "10"


def lesions(row: Row) -> float:
    """Share of all lesions met, in percent."""
    met, of = (sum(row[name][place] for name in ("lesions_small", "lesions_large")) for place in (0, 1))
    return 100 * met / of


def gamma_rows(found: Row, guard: float | None) -> Iterator[tuple[Row, Row]]:
    """Each set of phantoms with each of its rows at fixed thresholds."""
    for one in found["sets"]:
        if one["kind"] == "phantom":
            yield from ((one, row) for row in one["gammas"] if row["guard_mm"] == guard)


def verdict(found: Row) -> str:
    """Whether even spacing or the filter meets more lesions with the same number of slices, in a few sentences."""
    sets = [one for one in found["sets"] if one["kind"] == "phantom"]
    fixed = [row["against_filter"] for one in sets for row in one["rows"] if row["rule"] == EVEN]
    free = [row["even_minus_filter"] for _, row in gamma_rows(found, None)]
    guarded = [row["even_minus_filter"] for _, row in gamma_rows(found, 25.0)]
    more = _mean(fixed) > 0 and not any(high < 0 for _, _, high in fixed)
    said = "meet more lesions than the filter" if more else "do not meet more lesions than the filter"
    return (
        f"**With as many slices, evenly spaced slices {said}.** With the same number for every phantom, they meet "
        f"{_compared(fixed)}. Where the filter's threshold is fixed instead, so that it may keep more slices of one "
        f"phantom than of another, and even spacing gets the same number of each, they meet {_compared(free)}; "
        f"against the filter with its guard, {_compared(guarded)}."
    )


def _mean(gains: list[list[float]]) -> float:
    return sum(one[0] for one in gains) / len(gains)


def _compared(gains: list[list[float]]) -> str:
    more, less = sum(one[0] > 0 for one in gains), sum(one[0] < 0 for one in gains)
    sure, other = sum(one[1] > 0 for one in gains), sum(one[2] < 0 for one in gains)
    return (
        f"more in {more} and fewer in {less} of {len(gains)} comparisons, {_mean(gains):+.0f} points on average (95 % "
        f"interval above 0 in {sure}, below 0 in {other})"
    )


def enough(rows: Iterable[Row], rule: str, met: Any) -> Row | None:
    """The row of a rule with the fewest slices for which, and for all more, a condition holds."""
    best = None
    for row in sorted((one for one in rows if one["rule"] == rule), key=lambda one: -one["number"]):
        if not met(row):
            return best
        best = row
    return best


def head(found: Row) -> list[str]:
    """The first lines of the page: what holds at equal numbers, and what follows for each spacing."""
    return [
        "## At equal numbers of slices",
        "",
        verdict(found),
        "",
        "The filter averages over a slice, and follows the outline of the body; a lesion hardly changes that mean. So "
        "the fewer slices it may keep, the larger its gaps are.",
        "",
        *_thresholds(found),
        *recommendation(found),
    ]


def _thresholds(found: Row) -> list[str]:
    text = [
        "The filter at fixed thresholds γ (on intensities in 0 to 1), and as many evenly spaced slices of each "
        "phantom:",
        "",
        "| phantoms, spacing, window | γ | slices kept | lesions met, %: filter | evenly spaced | difference, points "
        "| organs lost: filter | evenly spaced | largest gap, mm: filter | evenly spaced |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one, row in gamma_rows(found, None):
        ours, even, (gain, low, high) = row["filter"], row["even"], row["even_minus_filter"]
        text.append(
            f"| {one['title']}, {row['spacing_mm']:g} mm, {one['window']} | {row['gamma']:g} | {ours['kept']:.0f} of "
            f"{row['slices']} | {lesions(ours):.0f} | {lesions(even):.0f} | {gain:+.0f} ({low:+.0f} to {high:+.0f}) | "
            f"{_lost(ours)} | {_lost(even)} | {ours['gap_mm']:.0f} | {even['gap_mm']:.0f} |"
        )
    return [*text, ""]


def _lost(row: Row) -> str:
    lost, of = row["organs_lost"]
    return f"{lost} of {of}"


def _ordered(found: Row) -> list[Row]:
    """Data sets, phantoms first."""
    return sorted(found["sets"], key=lambda one: str(one["kind"]))


def recommendation(found: Row) -> list[str]:
    """For each spacing, how many slices each rule needs, as far as they were measured."""
    text = [
        "### How many slices, by spacing",
        "",
        "The fewest slices of those tried (48, 24, 12, 6, and 96 where there are more) with which a rule, and with "
        "all larger numbers too, meets every lesion of 15 mm and more (phantoms), or every ball of 10 mm (real "
        "volumes). A dash: none of those tried suffices. Soft-tissue window, or percentiles for MR.",
        "",
        "| volumes | spacing, mm | slices | evenly spaced | filter | filter, at most 10 mm apart | by cumulative "
        "change |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in _ordered(found):
        if one["window"] not in ("soft_tissue", "percentile"):
            continue
        for spacing in dict.fromkeys(row["step"] for row in one["rows"]):
            rows = [row for row in one["rows"] if row["step"] == spacing]
            met = _all_large if one["kind"] == "phantom" else _all_balls
            rules = (EVEN, FILTER, "anchor, max_gap_mm 10", "cumulative_change")
            cells = [_count(enough(rows, rule, met)) for rule in rules]
            facts = [f"{one['title']}", f"{rows[0]['spacing_mm']:g}", f"{rows[0]['slices']}"]
            text.append("| " + " | ".join([*facts, *cells]) + " |")
    return [
        *text,
        "",
        "What follows: **choose slices by distance in mm, not by their content.** `evenly_spaced_mm` with a gap of 10 "
        "mm keeps every sixth slice at 1.5 mm, every third at 3 mm, every second at 5 mm, and all slices from 10 mm "
        "on; every ball of 10 mm then meets a kept slice by construction. Where a model takes fewer slices than that, "
        "space them evenly, and expect to miss what is smaller than the distance between two of them.",
        "",
    ]


def _count(row: Row | None) -> str:
    return "–" if row is None else str(row["number"])


def _all_large(row: Row) -> bool:
    met, of = row["lesions_large"]
    return bool(met == of)


def _all_balls(row: Row) -> bool:
    return bool(row["balls"][BALL_MM] == 1)


def tables(found: Row) -> list[str]:
    """A folded table for each data set and window: every rule at every number of slices."""
    text = [
        "## Every number, window and spacing",
        "",
        f"Made by `python benchmarks/slices.py ../shared/data --count {found['count']} --seed {found['seed']}`. Each "
        "phantom has one lesion or none; lesions that no slice shows at that spacing are left out. An organ is lost "
        "where no kept slice shows it; those of the CTs are a model's labels, or approximate. Differences are those "
        "of lesions met against the filter with as many slices, in points, with 95 % bootstrap intervals over "
        "phantoms.",
        "",
    ]
    for one in _ordered(found):
        for step in dict.fromkeys(row["step"] for row in one["rows"]):
            text += _table(one, [row for row in one["rows"] if row["step"] == step])
    return text


def _table(one: Row, rows: list[Row]) -> list[str]:
    phantom = one["kind"] == "phantom"
    columns = ["at most", "rule", "slices kept", "organs lost", "largest gap, mm", "balls of 5 / 10 / 20 mm met, %"]
    columns += ["lesions below 15 mm", "of 15 mm and more", "against the filter"] if phantom else []
    volumes = f"{one['volumes']} volume" + ("s" if one["volumes"] > 1 else "")
    title = f"{one['title']}, {rows[0]['spacing_mm']:g} mm, {one['window']} ({volumes}, {rows[0]['slices']} slices)"
    text = ["<details>", f"<summary>{'Phantoms, ' if phantom else ''}{title}</summary>", ""]
    text += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        balls = " / ".join(f"{100 * value:.0f}" for value in row["balls"].values())
        lost = _lost(row) if row["organs_lost"][1] else ""
        cells = [row["number"], row["rule"], f"{row['kept']:.1f}", lost, f"{row['gap_mm']:.1f}", balls]
        if phantom:
            gain = row["against_filter"]
            cells += [f"{row[name][0]} of {row[name][1]}" for name in ("lesions_small", "lesions_large")]
            cells.append(f"{gain[0]:+.0f} ({gain[1]:+.0f} to {gain[2]:+.0f})" if row["rule"] != FILTER else "")
        text.append("| " + " | ".join(map(str, cells)) + " |")
    return [*text, "", "</details>", ""]
