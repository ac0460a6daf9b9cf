# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The table of supported models comes from the registry."""

from __future__ import annotations

import importlib.util

import pytest

from monai_medpruner.networks.families import FAMILIES, FamilySummary


@pytest.fixture
def script(repository):
    spec = importlib.util.spec_from_file_location("supported_models", repository / "scripts/supported_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(script, tmp_path):
    """A page whose table is up to date."""
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{script.BEGIN}\n{script.table()}\n{script.END}\n\nMore.\n", encoding="utf-8")
    return path


def test_every_family_has_its_row(script, capsys):
    assert script.main([]) == 0
    heading, line, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(FAMILIES)
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert {len(row) for row in cells} == {heading.count(" | ") + 1} == {line.count("---")}
    for family, (names, serves, *_) in zip(FAMILIES, cells, strict=True):
        assert names == ", ".join(f"`{name}`" for name in family.model_types)
        assert serves == family.summary.serves


def test_a_page_that_is_up_to_date(script, page, capsys):
    assert script.main(["--check", str(page)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_page_that_says_something_else(script, page, monkeypatch, capsys):
    monkeypatch.setattr(FAMILIES[0], "summary", FamilySummary("Renamed", "pairs", "none", "first"))
    assert script.main(["--check", str(page)]) == 1
    assert script.table() in capsys.readouterr().err


def test_a_page_that_lacks_a_family(script, page, monkeypatch):
    monkeypatch.setattr(script, "FAMILIES", FAMILIES[:-1])
    assert script.main(["--check", str(page)]) == 1


@pytest.mark.parametrize("change", ["no marks", "turned round", "twice"])
def test_a_page_without_its_marks(script, page, change, capsys):
    text = page.read_text(encoding="utf-8")
    if change == "no marks":
        text = text.replace(script.END, "")
    elif change == "turned round":
        text = text.replace(script.BEGIN, "@").replace(script.END, script.BEGIN).replace("@", script.END)
    else:
        text += text
    page.write_text(text, encoding="utf-8")
    assert script.main(["--check", str(page)]) == 1
    assert "there must be one" in capsys.readouterr().err


def test_the_readme_is_up_to_date(script, repository):
    readme = repository / "README.md"
    if not readme.exists():
        pytest.skip("needs README.md, which is absent in this checkout")
    assert script.main(["--check", str(readme)]) == 0
