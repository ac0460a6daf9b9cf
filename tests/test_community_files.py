# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The files that a repository's host and its tools read: they parse, and name what is there."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

HOOKS = ("ruff", "ruff-format", "mypy", "import-contracts", "bundles")
FORMS = ("bug", "file", "model_family", "pruner")
# what GitHub's schema of issue forms knows: type -> whether it needs an id and a label
ELEMENTS = {"markdown": False, "textarea": True, "input": True, "dropdown": True, "checkboxes": True}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def configuration(repository):
    return read(repository / ".pre-commit-config.yaml")


@pytest.fixture
def hooks(configuration):
    (repo,) = configuration["repos"]
    assert repo["repo"] == "local"  # nothing is downloaded, and no version stands here
    return {hook["id"]: hook for hook in repo["hooks"]}


def test_hooks_run_the_projects_own_tools(repository, hooks):
    requirements = (repository / "pyproject.toml").read_text(encoding="utf-8")
    for name in HOOKS:
        hook = hooks.pop(name)
        assert hook["language"] == "system"
        words = hook["entry"].split()
        if words[:2] == ["python", "-m"]:
            assert f'"{words[2]}"' in requirements
        elif words[0] == "python":
            assert (repository / words[1]).is_file()
        else:
            assert words[0] == "lint-imports"
            assert shutil.which(words[0])
        for pattern in (hook[key] for key in ("files",) if key in hook):
            re.compile(pattern)
    assert {hook["language"] for hook in hooks.values()} == {"pygrep"}


@pytest.mark.parametrize(
    ("hook", "good", "bad"),
    [
        ("end-of-file", "one\ntwo\n", ["one", "one\n\n"]),
        ("trailing-whitespace", "one\n\n  two\n", ["one \n", "one\ntwo\t\n"]),
        ("merge-conflict", "a\n=======\n", ["a\n<<<<<<< HEAD\n", ">>>>>>> branch\n"]),
    ],
)
def test_text_hooks_find_what_they_are_for(repository, configuration, hooks, hook, good, bad):
    """As pre-commit searches: bytes, and line by line unless told otherwise."""
    if "--multiline" in hooks[hook].get("args", ()):
        pattern = re.compile(hooks[hook]["entry"].encode(), re.MULTILINE)
        found = [bool(pattern.search(text.encode())) for text in (good, *bad)]
    else:
        pattern = re.compile(hooks[hook]["entry"].encode())
        lines = [[line.rstrip("\r\n") for line in text.splitlines(keepends=True)] for text in (good, *bad)]
        found = [any(pattern.search(line.encode()) for line in text) for text in lines]
    assert found == [False] + [True] * len(bad)


@pytest.mark.parametrize("name", FORMS)
def test_issue_forms(repository, name):
    form = read(repository / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert set(form) == {"name", "description", "labels", "body"}
    named = []
    for element in form["body"]:
        attributes = element["attributes"]
        assert set(element) <= {"type", "id", "attributes", "validations"}
        if ELEMENTS[element["type"]]:
            named.append((element["id"], attributes["label"]))
        else:
            assert attributes["value"]
        if element["type"] == "dropdown":
            assert all(isinstance(option, str) for option in attributes["options"])
        if element["type"] == "checkboxes":
            assert all(option["label"] for option in attributes["options"])
    for values in zip(*named, strict=True):
        assert len(set(values)) == len(values) > 0


def test_no_issue_form_is_left_out(repository):
    folder = repository / ".github" / "ISSUE_TEMPLATE"
    assert {path.stem for path in folder.iterdir()} == {*FORMS, "config"}
    assert read(folder / "config.yml") == {"blank_issues_enabled": True}
    titles = {read(folder / f"{name}.yml")["name"] for name in FORMS}
    assert titles == {"Bug", "A file that reads wrong", "New model family", "New pruner"}


def test_workflow_runs_the_readmes_test_command(repository):
    workflow = read(repository / ".github" / "workflows" / "test.yml")
    assert workflow["permissions"] == {"contents": "read"}
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in workflow["jobs"].items()}
    assert commands["test"] == [".ci/run"]
    assert commands["audit"][-1].startswith("python -m pip_audit --requirement constraints.txt")
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert set(step) <= {"uses", "with", "run"}
            assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_nightly_workflow_reads_20_000_mutants(repository):
    workflow = read(repository / ".github" / "workflows" / "nightly.yml")
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] < 360
    formats = job["strategy"]["matrix"]["format"]
    command = job["steps"][-1]["run"]
    assert int(re.search(r"--count (\d+)", command)[1]) * len(formats) == 20_000
    for one in formats:
        path = re.search(r"python (scripts/.*\.py)", command)[1].replace("${{ matrix.format }}", one)
        assert (repository / path).exists(), path
    for step in job["steps"]:
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_citation(repository):
    citation = read(repository / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license", "preferred-citation"} <= set(citation)
    assert citation["authors"] == [{"name": "monai_medpruner contributors"}]
    assert citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2603.11625"}]
    assert (paper["type"], paper["year"]) == ("article", 2026)
    assert [author["family-names"] for author in paper["authors"][:3]] == ["Liu", "Ye", "Lin"]
    # the title and the first authors as the bundles cite them
    card = (repository / "bundles" / "medpruner_qwen3vl" / "docs" / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in " ".join(card.split())


def test_security_policy_says_what_is_trusted(repository):
    text = " ".join((repository / "SECURITY.md").read_text(encoding="utf-8").split())
    for words in ("A bundle is code", "safetensors", "trust_remote_code", "MONAI Label", "advisor", "--questions_file"):
        assert words in text
    assert "version 2.1" in (repository / "CODE_OF_CONDUCT.md").read_text(encoding="utf-8")


def test_links_between_these_files(repository):
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md"):
        for target in re.findall(r"\]\((?!https)([^)#]+)\)", (repository / name).read_text(encoding="utf-8")):
            assert (repository / target).is_file(), (name, target)
