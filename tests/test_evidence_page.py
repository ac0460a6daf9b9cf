# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the evidence says what the committed results say, and its figures are there."""

from __future__ import annotations

import importlib
import json
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


@pytest.mark.parametrize("name", ["findings", "findings_rare_tokens", "findings_gemma3", "findings_gemma3_rare_tokens"])
def test_the_page_of_small_findings_states_the_results(repository, name):
    page = (repository / "docs" / "evidence_findings.md").read_text(encoding="utf-8")
    results = json.loads((repository / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    (family,) = results["families"].values()
    compared = [one["all"] for methods in family["comparison"].values() for one in methods.values()]
    for cell in compared or [one["all"] for one in family["accuracy"].values()]:
        assert f"{cell['mean']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" in page
