# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Print the tables of settings, or check or update a page: ``settings_page.py [--check | --write] [docs/settings.md]``.

The tables are generated from ``monai_medpruner/configs/settings.json``, ``bundles/*.json``, the presets of the bundles
and the fields of the pruners.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_medpruner.data.benchmarks import BENCHMARKS
from monai_medpruner.pruners import PRUNERS, TokenPruner

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = REPOSITORY / "monai_medpruner" / "configs" / "settings.json"
PAGE = REPOSITORY / "docs" / "settings.md"
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"


def tables() -> str:
    """Return the Markdown tables of all settings and of the fields of all registered pruners."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    parts = []
    for group in dict.fromkeys(entry["group"] for entry in settings.values()):
        own = {name: entry for name, entry in settings.items() if entry["group"] == group}
        rows = [(f"`--{name}`", _value(entry["default"]), _cell(entry["help"])) for name, entry in own.items()]
        parts += [f"## {group.capitalize()}", _table(("option", "default", "meaning"), rows)]
    parts += ["## Defaults of the bundles", _table(("bundle", "defaults of its own"), _bundle_defaults(settings))]
    parts += ["## Presets", _table(("preset", "setting", *(f"`{one.name}`" for one in _bundles())), _presets())]
    parts.append("## Fields of the pruners")
    for name, pruner in PRUNERS.items():
        parts += [f"### `{name}`", _summary(pruner), _table(("field", "default", "meaning"), _fields(pruner))]
    return "\n\n".join(parts)


def _bundle_defaults(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each bundle's own values of the settings, without values that a configuration computes."""
    rows = []
    for file in sorted((REPOSITORY / "bundles").glob("*.json")):
        own = json.loads(file.read_text(encoding="utf-8"))
        values = {name: value for name, value in own.items() if name in settings and name != "revision"}
        texts = [f"`--{name}` {_value(value)}" for name, value in values.items() if _value(value)]
        rows.append((f"`{file.stem}`", ", ".join(texts) or "those above"))
    return rows


def _bundles() -> list[Path]:
    return sorted(path for path in (REPOSITORY / "bundles").iterdir() if path.is_dir())


def _presets() -> list[tuple[str, ...]]:
    """Return what each preset sets in each bundle; an empty cell leaves the bundle's default."""
    rows = []
    for name in sorted({path.stem for one in _bundles() for path in (one / "configs").glob("preset_*.json")}):
        files = [one / "configs" / f"{name}.json" for one in _bundles()]
        values = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        own = dict.fromkeys(setting for one in values for setting in one if setting != "preset")
        preset = name.removeprefix("preset_")
        for setting in own:
            cells = [_preset_value(one[setting]) if setting in one else "" for one in values]
            rows.append((f"`{preset}`", f"`{setting}`", *cells))
        if not own:
            rows.append((f"`{preset}`", "none: the defaults", *("" for _ in values)))
    return rows


def _preset_value(value: Any) -> str:
    """Return a value of a preset; of an expression, what it is with each benchmark."""
    if not (isinstance(value, str) and value.startswith("$")):
        return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"
    found = {name: ConfigParser({"benchmark": name, "value": value}).get_parsed_content("value") for name in BENCHMARKS}
    otherwise = ConfigParser({"benchmark": "", "value": value}).get_parsed_content("value")
    special = [f"`{one}` with `{name}`" for name, one in found.items() if one != otherwise]
    return ", ".join([*special, f"else `{otherwise}`"])


def _fields(pruner: type[TokenPruner]) -> list[tuple[str, str, str]]:
    """Return name, default and description of a pruner's fields, including those of its base class."""
    described: dict[str, str] = {}
    for one in reversed(pruner.__mro__):
        described |= described_arguments(inspect.getdoc(one) or "")
    return [
        (f"`{field.name}`", _value(field.default), described.get(field.name, ""))
        for field in dataclasses.fields(pruner)
    ]


def described_arguments(docstring: str) -> Mapping[str, str]:
    """Return the descriptions in the section ``Args:`` of a docstring, by name, each on one line."""
    _, found, section = docstring.partition("Args:\n")
    if not found:
        return {}
    section = re.split(r"\n(?=\S)", section)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*|\n(?=\n))*)", section, flags=re.MULTILINE)
    return {name: _cell(text) for name, text in entries}


def _summary(pruner: type[TokenPruner]) -> str:
    return _cell((inspect.getdoc(pruner) or "").partition("\n\n")[0])


def _cell(text: str) -> str:
    """Convert the reStructuredText of a docstring to one line of Markdown."""
    line = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r":\w+:`~?\.?([\w.]+\.)?(\w+)`", r"`\2`", line)


def _value(default: Any) -> str:
    if default is None:
        return "`none`"
    # a configuration computes values that begin with $ or @
    return (
        ""
        if isinstance(default, str) and (not default or default[0] in "$@")
        else f"`{default if isinstance(default, str) else json.dumps(default)}`"
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def up_to_date(page: str) -> str:
    """Return the page with up-to-date tables between its markers.

    Raises:
        ValueError: the page does not have exactly one pair of markers.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"there must be one {BEGIN} and, after it, one {END}")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. The exit status is 1 if a checked page is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare with the page")
    action.add_argument("--write", action="store_true", help="update the page")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    options = parser.parse_args(arguments)
    if not (options.check or options.write):
        sys.stdout.write(f"{tables()}\n")
        return 0
    current = options.page.read_text(encoding="utf-8")
    wanted = up_to_date(current)
    if options.write:
        options.page.write_text(wanted, encoding="utf-8")
    elif current != wanted:
        sys.stderr.write(f"{options.page} is not up to date: run python scripts/settings_page.py --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
