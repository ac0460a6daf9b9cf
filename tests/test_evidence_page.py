# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the evidence says what the committed results say, and its figures are there."""

from __future__ import annotations

import importlib
import re

import pytest


@pytest.fixture
def summary(repository, monkeypatch):
    """The module that writes the page."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module("evidence_summary")


def test_the_page_is_the_results(repository, summary):
    docs = repository / "docs"
    phantoms = (docs / "evidence_phantoms.md").read_text(encoding="utf-8")
    assert (docs / "evidence.md").read_text(encoding="utf-8") == summary.page(summary.results(), phantoms)


def test_three_small_figures(repository):
    text = (repository / "docs" / "evidence.md").read_text(encoding="utf-8")
    figures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(figures) == 3
    for name in figures:
        assert (repository / "docs" / name).stat().st_size < 150_000


def test_the_check_sees_a_stale_page(repository, summary, monkeypatch, tmp_path, capsys):
    docs = repository / "docs"
    for name in ("evidence.md", "evidence_phantoms.md"):
        (tmp_path / name).write_text((docs / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(summary, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["evidence_summary.py", "--check"])
    summary.main()
    (tmp_path / "evidence.md").write_text("old", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        summary.main()
    assert stop.value.code == 1
    assert "not up to date" in capsys.readouterr().err


def test_the_page_of_small_findings_is_the_results(repository, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    module = importlib.import_module("findings_page")
    monkeypatch.setattr("sys.argv", ["findings_page.py", "--check"])
    module.main()
    stale = tmp_path / "evidence_findings.md"
    stale.write_text("old", encoding="utf-8")
    monkeypatch.setattr(module, "PAGE", stale)
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 1


def test_what_was_wanted_of_small_findings_is_judged_by_the_figures(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    module = importlib.import_module("findings_page")

    def about(mean):
        return {"mean": mean, "low": mean - 1, "high": mean + 1}

    ours = {"minus unpruned": about(-3.1), "minus received attention": about(3), "minus random": about(7.9)}
    ours |= {"minus average pooling": about(5), "findings_that_keep_a_token_percent": dict.fromkeys(module.SIZES, 99)}
    family = {"comparison": {module.AT: {"local contrast": ours}}}
    family |= {"oracle_minus_unpruned": about(-2), "oracle_minus_random": about(9)}
    family["accuracy"] = {name: {"all": about(value)} for name, value in (("blind", 49.2), ("shuffled", 52.0))}
    rows = module.must_hold({"majority_percent": {"all": 50.0}}, family)[2:]
    verdicts = [row.split(" | ")[-1].removesuffix(" |") for row in rows]
    assert verdicts == ["met", "missed", "missed", "met", "missed", "met", "met", "met", "above"]
