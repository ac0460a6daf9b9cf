# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The pages of sweeps and comparisons say what the metrics and the lines say, and link to reports that exist."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from run_rows import ANSWERS, write_sweep_runs

from monai_medpruner.cli.main import main
from monai_medpruner.report import write_sweep


class Elements(HTMLParser):
    """Elements with their attributes and the text inside them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        one = {"tag": tag, "text": "", **dict(attributes)}
        self.found.append(one)
        if tag not in ("meta", "br", "input"):
            self.open.append(one)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for one in self.open:
            one["text"] += data

    def all(self, tag, **attributes):
        return [one for one in self.found if one["tag"] == tag and all(one.get(k) == v for k, v in attributes.items())]

    def section(self, title):
        (found,) = [one for one in self.all("section") if one["text"].startswith(title)]
        return found["text"]


@pytest.fixture
def rows(tmp_path):
    return write_sweep_runs(tmp_path)


@pytest.fixture
def sweep(rows, tmp_path):
    write_sweep(rows, tmp_path)
    return Elements((tmp_path / "sweep.html").read_text(encoding="utf-8"))


def test_markers_lie_where_the_metrics_say(rows, tmp_path):
    """Against the chart's own ticks: a straight line through two ticks gives the value of each marker."""
    write_sweep(rows, tmp_path)
    text = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    charts = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert [re.search("<figcaption>(.*?)</", one)[1] for one in charts] == ["All questions", "organ", "plane"]
    for chart, level in zip(charts, ("micro", "organ", "plane"), strict=True):
        ends = [
            (float(at), float(value))
            for at, value in re.findall(r'y="([\d.]+)" text-anchor="end" class="dim">([\d.]+)<', chart)
        ]
        across = [
            (float(at), float(value))
            for at, value in re.findall(r'x="([\d.]+)" y="[\d.]+" text-anchor="middle" class="dim">([\d.]+)<', chart)
        ]
        for row in rows:
            metrics = row["metrics"]
            cell = (metrics["micro"] if level == "micro" else metrics["types"][level])["accuracy"]
            gamma = "none" if row["gamma"] is None else f"{row['gamma']:g}"
            shape = chart[chart.index(f"γ {gamma}, τ {row['tau']:g}, T 1: {cell['value']:.1f} %") :]
            circle = re.match(r'[^<]*</title><circle cx="([\d.]+)" cy="([\d.]+)"', shape)
            square = re.match(r'[^<]*</title><path d="M([\d.]+) ([\d.]+)h10', shape)
            x, y = (float(one) for one in (circle or square).groups())
            offset = 0 if circle else 5
            assert value_at(across, x + offset) == pytest.approx(100 * metrics["retention"]["overall"], abs=0.5)
            assert value_at(ends, y + offset, shift=5) == pytest.approx(cell["value"], abs=0.5)


def value_at(ticks, place, shift=0.0):
    """The value of a place on an axis, by its first and last tick."""
    (at, value), (end, last) = ticks[0], ticks[-1]
    return value + (place + shift - at) * (last - value) / (end - at)


def test_questions_that_flipped_in_a_sweep(sweep):
    text = sweep.section("Questions that flipped")
    assert "3 of 5 closed questions" in text
    assert [f"{name}?" in text for name in ANSWERS] == [False, True, True, False, True]
    (table,) = sweep.all("table", **{"class": "flips"})
    marks = re.findall("[●○]+", table["text"])
    # by kept tokens: 90 %, 60 %, 40 %; first those that most lose
    assert marks == ["●○○", "○●●", "●●○"]
    assert {one["href"] for one in sweep.all("a")} == {"run1/reports/v0.html"}
    assert len(sweep.all("a")) == 3
    head = [one["title"] for one in sweep.all("th") if "title" in one]
    assert head == ["γ 0.01, τ 0.9, T 1", "γ none, τ 0.3, T 1", "γ 0.01, τ 0.3, T 1"]


def test_pages_of_texts_that_nobody_trusts(sweep):
    assert len(sweep.all("script")) == 1
    assert not sweep.all("img")
    assert "random weights" in sweep.all("p", **{"class": "banner"})[0]["text"]
    policy = sweep.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_no_question_without_lines(rows, tmp_path):
    """Rows of another source, which name no folder, have no list of questions."""
    write_sweep([{name: value for name, value in row.items() if name != "folder"} for row in rows], tmp_path)
    assert "flipped" not in (tmp_path / "sweep.html").read_text(encoding="utf-8")


def test_page_of_a_comparison(rows, tmp_path, capsys):
    paths = [str(tmp_path / f"run{place}" / "predictions.jsonl") for place in (0, 1)]
    page = tmp_path / "pages" / "a_b.html"
    main(["compare", *paths, "--page", str(page)])
    result = json.loads(capsys.readouterr().out)
    found = Elements(page.read_text(encoding="utf-8"))
    cell = result["micro"]["accuracy"]
    numbers = found.section("Numbers")
    assert cell["difference"] > 0
    assert f"{cell['first']:.1f}{cell['second']:.1f}{cell['difference']:+.1f} (" in numbers
    assert "40.0% and 90.0%" in found.all("dl")[0]["text"]
    lost, won = (found.section(title) for title in ("Right in A, wrong in B", "Wrong in A, right in B"))
    assert "1 of 5 closed questions" in lost
    assert [f"{name}?" in lost for name in ANSWERS] == [False, True, False, False, False]
    assert "2 of 5 closed questions" in won
    assert [f"{name}?" in won for name in ANSWERS] == [False, False, True, False, True]
    assert {(one["href"], one["text"]) for one in found.all("a")} == {("../run1/reports/v0.html", "B")}
    assert "pruner › tau0.40.9" in found.section("Settings that differ")
    assert len(found.all("script")) == 1
    assert not found.all("img")


def test_failed_items_and_foreign_lines(rows, tmp_path, capsys):
    """Lines of other tools, without records and settings, and failed items have a page too."""
    lines = [json.loads(one) for one in (tmp_path / "run0" / "predictions.jsonl").read_text().splitlines()]
    asked = ("id", "answer", "reference", "reference_choice", "choices", "type")
    foreign = [{name: one[name] for name in asked} for one in lines]
    foreign[0] |= {"status": "EncodingError", "answer": "", "record": "../../elsewhere"}
    (tmp_path / "foreign.jsonl").write_text("".join(json.dumps(one) + "\n" for one in foreign))
    page = tmp_path / "page.html"
    main(
        ["compare", str(tmp_path / "run0" / "predictions.jsonl"), str(tmp_path / "foreign.jsonl"), "--page", str(page)]
    )
    capsys.readouterr()
    found = Elements(page.read_text(encoding="utf-8"))
    assert "failed" in found.section("Right in A, wrong in B")
    assert not found.all("a")
    assert "40.0% and –" in found.all("dl")[0]["text"]
