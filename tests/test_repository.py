# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the repository says of itself: the README's commands, the example in CONTRIBUTING."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess

import pytest
import torch

from monai_medpruner.pruners import Keys, ReceivedAttention, SliceTokens
from monai_medpruner.testing import check_pruner, check_slice_rule


def marked_block(text, mark):
    """The bash block after a mark, found independently of ``.ci/run``."""
    blocks = re.findall(rf"<!-- {mark} -->\n```bash\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


@pytest.fixture
def ci_run(repository, tmp_path):
    """Return a function: text of a README -> what ``.ci/run`` does beside it."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "run", tmp_path / ".ci" / "run")

    def run(readme):
        (tmp_path / "README.md").write_text(readme)
        command = [str(tmp_path / ".ci" / "run")]
        return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)

    return run


def test_ci_runs_the_test_command_of_the_readme(repository, ci_run, tmp_path):
    """The README's own text, with its test command traded for one that shows where and how it runs."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    command = marked_block(readme, "test")
    replacement = 'pwd > ran\necho "$SHELLOPTS" >> ran\n'
    process = ci_run(readme.replace(command, replacement))
    assert process.returncode == 0, process.stderr
    assert process.stdout == replacement
    folder, options = (tmp_path / "ran").read_text().splitlines()
    assert folder == str(tmp_path.resolve())
    assert {"errexit", "nounset", "pipefail"} <= set(options.split(":"))


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        ("<!-- test -->\n```bash\necho one\nfalse\necho two\n```\n", "one"),
        ("<!-- test -->\n```bash\nfalse | true\n```\n", ""),
        ("<!-- run -->\n```bash\ntrue\n```\n", "no bash block after <!-- test -->"),
        ("", "no bash block after <!-- test -->"),
    ],
    ids=["failing line", "failing pipe", "other block", "empty"],
)
def test_ci_fails_where_it_must(ci_run, readme, message):
    process = ci_run(readme)
    assert process.returncode != 0
    assert message in process.stdout + process.stderr
    assert "two" not in process.stdout.splitlines()


def test_readme_commands(repository):
    """Both commands start from nothing and take the pinned versions; the second runs every check."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    run, test = marked_block(readme, "run"), marked_block(readme, "test")
    for command in (run, test):
        assert command.startswith("python3 -m venv .venv")
        assert "-c constraints.txt" in command
        subprocess.run(["bash", "-n", "-c", command], check=True)
    assert "monai.bundle run" in run
    assert test.rstrip().endswith("scripts/check")
    for script in (".ci/run", "scripts/check", "scripts/check_label", "scripts/check_vllm"):
        assert os.access(repository / script, os.X_OK), script


def test_check_runs_every_tool_and_stops_at_a_failure(repository, tmp_path):
    """With stand-ins for the tools, so that neither the linters nor the tests run again."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "check", tmp_path / "scripts" / "check")
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$HF_HUB_OFFLINE $PWD $*" >> calls\n[ "$2" != "$FAILING" ]\n')
    stand_in.chmod(0o755)
    contracts = tmp_path / "lint-imports"
    contracts.write_text("#!/bin/sh\npython -m importlinter\n")
    contracts.chmod(0o755)
    for name in ("build_site", "check_label", "check_vllm"):
        script = tmp_path / "scripts" / name
        script.write_text(f"#!/bin/sh\npython -m {name}\n")
        script.chmod(0o755)
    pytest_with_coverage = "pytest -n 2 --cov --cov-report=term:skip-covered"
    tools = ["ruff check .", "ruff format --check .", "mypy", "importlinter", "build_site"]
    tools += [pytest_with_coverage, "check_label", "check_vllm"]
    failures = {"": tools, "mypy": tools[:3], "importlinter": tools[:4], "build_site": tools[:5], "pytest": tools[:6]}
    failures |= {"check_label": tools[:7], "check_vllm": tools}
    for failing, expected in failures.items():
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FAILING": failing}
        process = subprocess.run([tmp_path / "scripts" / "check"], cwd="/", env=environment, capture_output=True)
        assert (process.returncode == 0) is (failing == "")
        calls = (tmp_path / "calls").read_text().splitlines()
        assert calls == [f"1 {tmp_path.resolve()} -m {tool}" for tool in expected]
        (tmp_path / "calls").unlink()


def test_the_example_pruner(repository, tmp_path, monkeypatch):
    """The pruner in CONTRIBUTING, run as it stands there."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example, _ = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(example.splitlines()) < 30
    (tmp_path / "top_tokens.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    example_pruner = importlib.import_module("top_tokens").TopTokensPruner
    generator = torch.Generator().manual_seed(0)
    valid = torch.arange(12) < torch.tensor([[12], [5], [1]])
    tokens = torch.randn(3, 12, 4, generator=generator)
    importance = torch.rand(3, 12, generator=generator)
    signals = {ReceivedAttention(): importance, Keys(): torch.randn(3, 12, 4, generator=generator)}
    slices = SliceTokens(tokens=tokens, valid=valid, grids=[(3, 4), (1, 5), (1, 1)], signals=signals)
    pruned = example_pruner(keep_ratio=0.25)(slices)
    assert pruned.primary.sum(1).tolist() == [3, 2, 1]
    for kept, score, real in zip(pruned.primary, importance, valid, strict=True):
        assert score[kept].min() >= score[real & ~kept].max() if (real & ~kept).any() else kept.any()
    check_pruner(example_pruner())
    with pytest.raises(ValueError, match="keep_ratio"):
        example_pruner(keep_ratio=0)


def test_the_example_slice_rule(repository, tmp_path, monkeypatch):
    """The slice rule in CONTRIBUTING, run as it stands there."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, example = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "every_nth.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rule = importlib.import_module("every_nth").EveryNth
    check_slice_rule(rule())
    check_slice_rule(rule(step=5))


def test_every_package_is_installed(repository):
    """The list in pyproject.toml names every folder with code, and the bundles."""
    packages = re.search(
        r"^packages = \[(.*?)\]", (repository / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    folders = {
        ".".join(path.parent.relative_to(repository).parts) for path in repository.glob("monai_medpruner/**/*.py")
    }
    assert set(re.findall(r'"(.*?)"', packages[1])) == folders | {"monai_medpruner.bundle_files"}
