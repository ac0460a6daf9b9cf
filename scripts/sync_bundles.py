# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the bundles' inference configurations in their common form: ``sync_bundles.py [--check]``.

``bundles/medpruner_qwen3vl/configs/inference.json`` is the common form. A bundle keeps its own values of the settings,
which are the keys before ``settings``, and its own ``prompt``; everything else is taken from the common form. It may
have settings that the common form lacks if its other settings are made of them. The configurations of evaluation, which
stand on it, are the same in all bundles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
COMMON = "medpruner_qwen3vl"
SAME = ("evaluate.json", "multi_gpu_evaluate.json", "sweep.json")


def setting_names(config: dict[str, Any]) -> list[str]:
    """Return the keys before ``settings``."""
    names = list(config)
    return names[: names.index("settings")]


def synchronized(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the common form with a bundle's own settings and prompt; a setting that it lacks has the common value.

    A setting that the common form lacks must be read by one of the bundle's other settings, before which it is put.

    Raises:
        ValueError: the bundle has a setting that the common form has not, and nothing would read it.
    """
    names = setting_names(common)
    values = {**common, **{name: own[name] for name in (*names, "prompt") if name in own}}
    extra = [name for name in setting_names(own) if name not in names]
    readers = {name: [one for one in names if f"@{name}" in json.dumps(values[one])] for name in extra}
    if unread := [name for name in extra if not readers[name]]:
        raise ValueError(f"the common form has no setting {unread[0]!r}")
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= {one: own[one] for one in extra if readers[one][0] == name}
        result[name] = value
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 1 where a file is not in the common form and, without --check, cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=BUNDLES, help="folder of the bundles")
    parser.add_argument("--check", action="store_true", help="say which files differ, and write none")
    options = parser.parse_args(arguments)
    own = options.bundles / COMMON / "configs"
    common = _read(own / "inference.json")
    failed = False
    for path in sorted(options.bundles.glob("*/configs/inference.json")):
        try:
            text = json.dumps(synchronized(common, _read(path)), indent=4, ensure_ascii=False) + "\n"
        except ValueError as error:
            sys.stderr.write(f"{path}: {error}\n")
            failed = True
            continue
        failed |= not _settle(path, text, options.check)
        for name in SAME:
            failed |= not _settle(path.with_name(name), (own / name).read_text(encoding="utf-8"), options.check)
    return int(failed)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _settle(path: Path, text: str, check: bool) -> bool:
    """Write a file that differs; or, where it is only checked, say so and return False."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return True
    if check:
        sys.stderr.write(f"{path} is not in the common form: run scripts/sync_bundles.py\n")
        return False
    path.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
