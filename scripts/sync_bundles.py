# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Write the bundles' inference configurations in their common form: ``sync_bundles.py [--check]``.

``bundles/medpruner_qwen3vl/configs/inference.json`` is the common form. A bundle keeps its own values of the settings,
which are the keys before ``settings``, and its own ``prompt``; everything else is taken from the common form. It may
have settings that the common form lacks if its other settings are made of them.
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


def setting_names(config: dict[str, Any]) -> list[str]:
    """Return the keys before ``settings``."""
    names = list(config)
    return names[: names.index("settings")]


def synchronised(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
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
    common = json.loads((options.bundles / COMMON / "configs" / "inference.json").read_text(encoding="utf-8"))
    failed = False
    for path in sorted(options.bundles.glob("*/configs/inference.json")):
        held = path.read_text(encoding="utf-8")
        try:
            text = json.dumps(synchronised(common, json.loads(held)), indent=4, ensure_ascii=False) + "\n"
        except ValueError as error:
            sys.stderr.write(f"{path}: {error}\n")
            failed = True
            continue
        if text != held and options.check:
            sys.stderr.write(f"{path} is not in the common form: run scripts/sync_bundles.py\n")
            failed = True
        elif text != held:
            path.write_text(text, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
