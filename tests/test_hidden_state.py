# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""No module keeps a result where the next call, another thread or an import finds it, or looks at its caller."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "monai_medpruner"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

#: what reaches beyond a call: names that outlive it, and the frames of its callers
FORBIDDEN = {
    "threading.local",
    "contextvars",
    "inspect.currentframe",
    "inspect.stack",
    "sys._getframe",
    "sys._current_frames",
    "sys.argv",
    "globals",
}
#: what is allowed, by module: one place reads the command line, one registers families of others, and one keeps a
#: dictionary that takes seconds to read from disk; none of these is a result
ALLOWED = {
    ("command_line.py", "sys.argv"),
    ("networks/families/__init__.py", "changes FAMILIES"),
    ("metrics/wordnet.py", "changes _readers"),
}
CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Local name -> what it stands for, for every import of a module, also inside functions."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.split(".")[0]] = one.name if one.asname else one.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return names


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent that is no package, or is not installed
        return False


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """``inspect.stack`` for such an expression, whatever ``inspect`` is called here."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def bound_names(function: ast.AST) -> set[str]:
    """Arguments and local variables of a function."""
    return {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} | {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def module_variables(tree: ast.Module) -> set[str]:
    """Names that the module itself assigns."""
    return {
        node.id
        for statement in tree.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign))
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def changed_objects(function: ast.AST) -> Iterator[ast.AST]:
    """Expressions whose value a function changes: assigned attributes and entries, calls of changing methods."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            yield node.func.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            yield node.args[0]


def faults(name: str, source: str) -> list[str]:
    """What a module does that it must not; ``name`` is its path in the package."""
    tree = ast.parse(source)
    names, found = imported_names(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.append(f"global {', '.join(node.names)}")
        elif isinstance(node, (ast.Name, ast.Attribute)):
            found += [used for used in (dotted(node, names),) if used in FORBIDDEN]
    found += [used for used in names.values() if used in FORBIDDEN and used not in found]
    for function in functions(tree):
        local = bound_names(function)
        for changed in changed_objects(function):
            if isinstance(changed, ast.Name) and changed.id in module_variables(tree) - local:
                found.append(f"changes {changed.id}")
            elif (target := dotted(changed, names)) and target.split(".")[0] not in local and is_module(target):
                found.append(f"changes {target}")
    return sorted({fault for fault in found if (name, fault) not in ALLOWED})


@pytest.mark.parametrize("module", MODULES)
def test_nothing_outlives_a_call(module):
    assert faults(module, (PACKAGE / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import threading\nLAST = threading.local()", ["threading.local"]),
        ("from threading import local as kept", ["threading.local"]),
        ("import contextvars", ["contextvars"]),
        ("from inspect import currentframe\ncurrentframe()", ["inspect.currentframe"]),
        ("import sys as s\ns._getframe(1)", ["sys._getframe"]),
        ("from sys import argv", ["sys.argv"]),
        ("A = 1\ndef f():\n    global A\n    A = 2", ["global A"]),
        ("A = {}\ndef f(x):\n    A[x] = 1", ["changes A"]),
        ("A = []\nclass B:\n    def f(self, x):\n        A.append(x)", ["changes A"]),
        ("def f(x):\n    globals()['A'] = x", ["globals"]),
        ("import torch\ndef f(x):\n    torch.result = x", ["changes torch"]),
        ("from monai_medpruner import errors\ndef f(x):\n    errors.LAST = x", ["changes monai_medpruner.errors"]),
        (
            "from monai_medpruner import errors\ndef f(x):\n    setattr(errors, 'LAST', x)",
            ["changes monai_medpruner.errors"],
        ),
        ("A = {}\nA['x'] = 1\ndef f(A):\n    A['y'] = 2\n    b = {}\n    b.update(A)\n    return A['x']", []),
    ],
)
def test_the_walk_finds_what_it_is_for(source, expected):
    assert faults("module.py", source) == expected


def test_one_module_reads_the_command_line():
    assert faults("command_line.py", "import sys\nsys.argv") == []
    assert faults("cli/ask.py", "import sys\nsys.argv") == ["sys.argv"]
