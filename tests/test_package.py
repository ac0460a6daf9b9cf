# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What ``import monai_medpruner`` offers, and what it costs."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys

import pytest

import monai_medpruner


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", monai_medpruner.__all__)
def test_every_name_resolves(name):
    found = getattr(monai_medpruner, name)
    assert found is getattr(monai_medpruner, name)
    if name != "__version__":
        assert found.__name__ == name
        assert found.__module__.startswith("monai_medpruner.")


def test_one_list_of_names(repository):
    """The table, ``__all__`` and what type checkers read hold the same names, in the same parts."""
    parts = monai_medpruner._PARTS
    tree = ast.parse((repository / "monai_medpruner" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    read = {node.module.removeprefix("monai_medpruner."): {one.name for one in node.names} for node in block.body}
    assert read == {part: set(names) for part, names in parts.items()}
    assert sorted([*monai_medpruner._PART_OF, "__version__"]) == sorted(monai_medpruner.__all__)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'monai_medpruner' has no attribute 'Prunner'"):
        monai_medpruner.Prunner  # noqa: B018 - what is tested
    with pytest.raises(ImportError, match="cannot import name 'Prunner'"):
        exec("from monai_medpruner import Prunner")


def test_import_is_light():
    """It loads neither PyTorch nor MONAI, so that help answers at once."""
    code = "import sys, json, monai_medpruner; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    assert not {"torch", "monai", "numpy", "transformers"} & set(json.loads(run(code)))


def test_looking_at_the_module_imports_nothing():
    """As MONAI's component locator does with every module of that prefix."""
    code = (
        "import inspect, sys, monai_medpruner; inspect.getmembers(monai_medpruner); "
        "print(sorted(name for name in sys.modules if name.startswith('monai_medpruner')))"
    )
    assert run(code).strip() == "['monai_medpruner']"


def test_version_stands_once(repository):
    assert importlib.metadata.version("monai-medpruner") == monai_medpruner.__version__
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "monai_medpruner.__version__" }' in project
    assert f'"{monai_medpruner.__version__}"' not in project
    assert f"version: {monai_medpruner.__version__}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")


def test_types_are_shipped(repository):
    assert (repository / "monai_medpruner" / "py.typed").is_file()
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert '"py.typed"' in project
