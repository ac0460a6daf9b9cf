# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Charts of runs as SVG, drawn without a script. Series differ in marker and dashes, not in color alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from monai_medpruner.report.html import Html, element

__all__ = ["Point", "Series", "curve_chart", "difference_chart", "series_key", "signed"]

_WIDE, _TALL = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 30, 46
_KINDS = 6
_HALF = 5.0


@dataclass(frozen=True)
class Point:
    """A run in a chart, in percent.

    Args:
        kept: share of the visual tokens.
        value: of the measure.
        low: lower limit of its interval.
        high: upper limit.
        label: next to the point, where there is room.
        title: shown when the pointer rests on it.
    """

    kept: float
    value: float
    low: float
    high: float
    label: str
    title: str


@dataclass(frozen=True)
class Series:
    """Runs that a line connects, in the order of the line.

    Args:
        name: in the legend.
        number: says which marker, dashes and color it has.
        points: of the line.
    """

    name: str
    number: int
    points: Sequence[Point]


def curve_chart(title: str, measure: str, series: Sequence[Series], baseline: float | None = None) -> Html:
    """Return a chart of a measure against the share of kept tokens, with intervals.

    Args:
        title: above the chart.
        measure: name of the measure, with its unit.
        series: at least one point in all.
        baseline: value of the measure without a model, as a dashed line; None for none.
    """
    points = [point for one in series for point in one.points]
    values = [limit for point in points for limit in (point.low, point.high)] + [baseline] * (baseline is not None)
    low, high = _range(values)  # type: ignore[arg-type]
    most = max(point.kept for point in points) * 1.12 or 1.0
    inner, height = _WIDE - _LEFT - _RIGHT, _TALL - _TOP - _BOTTOM
    place = _Placed(
        lambda kept: _LEFT + kept / most * inner, lambda value: _TOP + (high - value) / (high - low) * height
    )
    parts = [*_axes(place, low, high, most), element("text", measure, x=0, y=16, class_="dim")]
    if baseline is not None:
        y = place.y(baseline)
        parts.append(element("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="limit"))
    taken: list[tuple[float, float]] = [(place.x(one.kept), place.y(one.value)) for one in points]
    for one in series:
        parts += _line(one, place)
        parts += [_marked(one.number, point, place) for point in one.points]
    for point in points:
        parts += _label(point, place, taken)
    chart = element("svg", *parts, viewBox=f"0 0 {_WIDE} {_TALL}", role="img", aria_label=f"{title}: {measure}")
    return element("figure", element("figcaption", title), chart, class_="chart")


def difference_chart(rows: Sequence[tuple[str, float, float, float]], unit: str) -> Html:
    """Return differences with their intervals, one below the other, about a line at 0.

    Args:
        rows: name, value, and the limits of its interval.
        unit: of all values.
    """
    most = max([1.0, *(abs(limit) for _, *numbers in rows for limit in numbers)]) * 1.1
    names = [_cut(name, 30) for name, *_ in rows]
    left, inner, tall = 34 + 8 * max(map(len, names)), 470, 30
    wide = left + inner + 20
    x = lambda value: left + (value + most) / (2 * most) * inner  # noqa: E731
    bottom = 10 + tall * len(rows)
    parts = []
    for tick in _ticks(-most, most, 6):
        parts += [
            element("line", x1=f"{x(tick):.1f}", x2=f"{x(tick):.1f}", y1=6, y2=bottom, class_="axis"),
            element(
                "text",
                f"{tick:+g}".replace("-", "\N{MINUS SIGN}") if tick else "0",
                x=f"{x(tick):.1f}",
                y=bottom + 18,
                text_anchor="middle",
                class_="dim",
            ),
        ]
    parts.append(element("line", x1=f"{x(0):.1f}", x2=f"{x(0):.1f}", y1=6, y2=bottom, class_="limit"))
    for number, (name, value, low, high) in enumerate(rows):
        y = 10 + tall * number + tall / 2
        parts += [
            element("text", names[number], element("title", name), x=left - 14, y=y + 5, text_anchor="end"),
            element("path", d=f"M{x(low):.1f} {y - 5}v10m0 -5H{x(high):.1f}m0 -5v10", class_="interval"),
            element(
                "circle",
                element("title", f"{name}: {signed(value)} ({signed(low)} to {signed(high)})"),
                cx=f"{x(value):.1f}",
                cy=y,
                r=_HALF,
                class_="dot on",
            ),
        ]
    parts.append(element("text", unit, x=left + inner, y=bottom + 38, text_anchor="end", class_="dim"))
    chart = element("svg", *parts, viewBox=f"0 0 {wide} {bottom + 44}", role="img", aria_label=f"Differences, {unit}")
    return element("div", chart, class_="chart forest")


def series_key(series: Sequence[Series]) -> Html:
    """Return the legend of the series."""
    entries = []
    for one in series:
        kind = one.number % _KINDS
        line = element("line", x1=2, x2=34, y1=8, y2=8, class_=f"series s{kind}")
        sample = element("svg", line, _marker(kind, 18, 8), viewBox="0 0 36 16", width=36, height=16, class_="sample")
        entries.append(element("span", sample, f" {one.name}", class_="entry"))
    return element("p", *entries, class_="legend chart")


@dataclass(frozen=True)
class _Placed:
    """Where a share and a value lie in a chart."""

    x: Callable[[float], float]
    y: Callable[[float], float]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(2.0, (high - low) * 0.08)
    return max(0.0, low - margin), min(100.0, high + margin) if high <= 100 else high + margin


def _axes(place: _Placed, low: float, high: float, most: float) -> Iterator[Html]:
    base = _TALL - _BOTTOM
    for value in _ticks(low, high, 5):
        y = f"{place.y(value):.1f}"
        yield element("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=y, y2=y, class_="axis")
        yield element("text", f"{value:g}", x=_LEFT - 8, y=f"{place.y(value) + 5:.1f}", text_anchor="end", class_="dim")
    for kept in _ticks(0.0, most, 6):
        x = f"{place.x(kept):.1f}"
        yield element("line", x1=x, x2=x, y1=base, y2=base + 5, class_="axis")
        yield element("text", f"{kept:g}", x=x, y=base + 21, text_anchor="middle", class_="dim")
    yield element("text", "visual tokens kept, %", x=_WIDE - _RIGHT, y=_TALL - 4, text_anchor="end", class_="dim")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return round values in a range, about as many as there may be."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _line(series: Series, place: _Placed) -> Iterator[Html]:
    kind = series.number % _KINDS
    for point in series.points:
        x = place.x(point.kept)
        low, high = place.y(point.low), place.y(point.high)
        yield element("path", d=f"M{x - 4:.1f} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8", class_=f"interval s{kind}")
    path = "L".join(f"{place.x(point.kept):.1f} {place.y(point.value):.1f}" for point in series.points)
    yield element("path", d=f"M{path}", class_=f"series s{kind}")


def _marked(number: int, point: Point, place: _Placed) -> Html:
    marker = _marker(number % _KINDS, place.x(point.kept), place.y(point.value))
    return element("g", element("title", point.title), marker)


def _marker(kind: int, x: float, y: float) -> Html:
    """Return a circle, square, diamond, triangle, triangle on its tip, or open circle."""
    r = _HALF
    shapes = {
        1: f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        2: f"M{x:.1f} {y - 1.4 * r:.1f}l{1.4 * r} {1.4 * r}l{-1.4 * r} {1.4 * r}l{-1.4 * r} {-1.4 * r}z",
        3: f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r} {2.2 * r}h{-2.4 * r}z",
        4: f"M{x:.1f} {y + 1.2 * r:.1f}l{1.2 * r} {-2.2 * r}h{-2.4 * r}z",
    }
    name = f"marker s{kind}{' open' if kind == 5 else ''}"
    if kind in shapes:
        return element("path", d=shapes[kind], class_=name)
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=r, class_=name)


def _label(point: Point, place: _Placed, taken: list[tuple[float, float]]) -> Iterator[Html]:
    """Write a point's label at the first of four places that is free; nowhere if none is."""
    x, y = place.x(point.kept), place.y(point.value)
    half = 3.7 * len(point.label)
    for right, down in ((half + 9, -11), (half + 9, 12), (-half - 9, -11), (-half - 9, 12)):
        center = (x + right, y + down)
        inside = (
            _LEFT <= center[0] - half and center[0] + half <= _WIDE and _TOP - 8 <= center[1] <= _TALL - _BOTTOM - 4
        )
        if inside and all(abs(center[0] - a) > half + 8 or abs(center[1] - b) > 14 for a, b in taken):
            taken += [(center[0] - half / 2, center[1]), (center[0] + half / 2, center[1])]
            yield element(
                "text", point.label, x=f"{center[0]:.1f}", y=f"{center[1] + 5:.1f}", text_anchor="middle", class_="tag"
            )
            return


def signed(value: float) -> str:
    """Return a difference with its sign and one decimal; 0 has no sign."""
    shown = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if shown[1:] == "0.0" else shown


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
