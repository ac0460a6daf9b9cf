# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the complete configuration files of the bundles: ``sync_bundles.py [--check]``.

``monai_medpruner/configs`` has the common configuration of all bundles. ``bundles/<name>.json`` has the differences, by
the ids of MONAI's command line: ``"max_slices"``, ``"prompt::question"``, ``"_meta_::name"``. An id that begins with
``+`` adds to a list, and ``{common}`` in a text of the metadata is replaced by the common text. A bundle may add a
setting if one of its other settings refers to it.

Each ``preset_<name>.json`` there is copied to every bundle, with the values that ``bundles/<name>.json`` has under
``"preset_<name>"`` added to it or in place of its own.

The script also generates the settings at the top of a file and the block ``optional`` from ``settings.json``, with
other defaults under a budget of tokens where it states them; the block ``pruners`` from the dataclasses of the
registered pruners; and the versions in ``metadata.json`` from ``constraints.txt`` and ``pyproject.toml``.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from monai_medpruner import __version__, pruners
from monai_medpruner.pruners import PRUNERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
COMMON = REPOSITORY / "monai_medpruner" / "configs"
#: files that are the same in every bundle
SAME = ("evaluate.json", "multi_gpu_evaluate.json", "sweep.json")
#: files of settings under one name
PRESET = "preset_"
META = "_meta_"
#: packages whose tested version has its own key in the metadata
TESTED = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
EVALUATION = "evaluation"


def inference_config(differences: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete ``inference.json`` of a bundle.

    Args:
        differences: content of ``bundles/<name>.json``.

    Raises:
        ValueError: an id is not in the common configuration, and no setting refers to it.
    """
    described = {name: one for name, one in read(COMMON / "settings.json").items() if one["group"] != EVALUATION}
    settings = {name: one["default"] for name, one in described.items()}
    common = read(COMMON / "inference.json")
    own = {
        name: value
        for name, value in differences.items()
        if META not in name.split("::")[0] and not name.startswith(PRESET)
    }
    extra = {name: value for name, value in own.items() if "::" not in name and name not in {**settings, **common}}
    config = {"imports": common.pop("imports"), **settings, "optional": optional_block(described), **common}
    for name, value in own.items():
        if name not in extra:
            set_value(config, name, value)
    for name, one in described.items():
        if "under_budget" in one:
            config[name] = budget_default(config[name], one["under_budget"])
    # inserted before the blocks that refer to them
    config = insert_before(config, "token_pruner", {"pruners": pruner_blocks(settings)})
    for name, value in extra.items():
        readers = [one for one in settings if f"@{name}" in json.dumps(config[one])]
        if not readers:
            raise ValueError(f"there is no setting {name!r} in the common configuration, and nothing refers to it")
        config = insert_before(config, readers[0], {name: value})
    return config


def presets(differences: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the presets of a bundle by file name: id -> value.

    Args:
        differences: content of ``bundles/<name>.json``.
        config: the bundle's complete ``inference.json``.

    Raises:
        ValueError: a preset of the bundle is not among the common ones, or sets what the configuration does not have.
    """
    files = {path.stem: read(path) for path in sorted(COMMON.glob(f"{PRESET}*.json"))}
    for name, values in differences.items():
        if name.startswith(PRESET):
            if name not in files:
                raise ValueError(f"there is no common {name}.json")
            files[name] = {**files[name], **values}
    for name, values in files.items():
        for one in values:
            try:
                set_value(copy.deepcopy(config), one, None)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return {f"{name}.json": values for name, values in files.items()}


def evaluation_config() -> dict[str, Any]:
    """Return the complete ``evaluate.json``."""
    described = {name: one for name, one in read(COMMON / "settings.json").items() if one["group"] == EVALUATION}
    settings = {name: one["default"] for name, one in described.items()}
    return {**settings, "+optional": optional_block(described), **read(COMMON / "evaluate.json")}


def optional_block(described: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the block that replaces the text ``none`` by null."""
    # the block of pruners has an entry for the name "none"
    return {name: f"$optional(@{name})" for name, one in described.items() if one.get("none") and name != "pruner"}


def budget_default(default: Any, under_budget: Any) -> str:
    """Return the expression of a default that is another one under a budget of tokens; a given value replaces it."""
    return f"${under_budget!r} if @under_budget else {default!r}"


def pruner_blocks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block for each registered pruner. Fields with a setting of the same name refer to it.

    Args:
        settings: settings of the bundles.
    """
    blocks: dict[str, Any] = {}
    for name, pruner in PRUNERS.items():
        place = pruners.__name__ if hasattr(pruners, pruner.__name__) else pruner.__module__
        values = {one.name: f"@{one.name}" if one.name in settings else default(one) for one in fields(pruner)}
        blocks[name] = {"_target_": f"{place}.{pruner.__name__}", **values}
    return {**blocks, "none": None}


def default(field: Field[Any]) -> Any:
    """Return the default of a dataclass field.

    Raises:
        ValueError: the field has no default.
    """
    if field.default is not MISSING:
        return field.default
    if field.default_factory is MISSING:
        raise ValueError(f"field {field.name!r} of a pruner has no default")
    return field.default_factory()


def metadata(differences: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete ``metadata.json`` of a bundle.

    Args:
        differences: content of ``bundles/<name>.json``.
        config: the bundle's complete ``inference.json``.

    Raises:
        ValueError: an id is not in the common configuration.
    """
    content = read(COMMON / "metadata.json")
    content |= versions()
    for name, value in differences.items():
        first, _, rest = name.partition("::")
        if first.lstrip("+") == META:
            set_value(content, first.removesuffix(META) + rest, value)
    prediction = content["network_data_format"]["outputs"]["pred"]
    size = str(prediction["num_channels"])
    prediction["channel_def"] = {
        number: text.replace("{channels}", size) for number, text in prediction["channel_def"].items()
    }
    if content["huggingface_model_id"] is None and config["revision"] is not None:
        content |= {"huggingface_model_id": config["model_id"], "huggingface_revision": config["revision"]}
    if content["huggingface_model_id"] is None:
        return {name: value for name, value in content.items() if not name.startswith("huggingface_")}
    return content | {"huggingface_url": f"https://huggingface.co/{content['huggingface_model_id']}"}


def versions() -> dict[str, Any]:
    """Return the tested versions and the version requirements."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    tested = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in pins}
    dependencies = [Requirement(line) for line in project["dependencies"]]
    # with operators, because the model zoo pins a version without an operator exactly
    required = {one.name: str(one.specifier) for one in dependencies if one.specifier and one.name not in TESTED}
    return {
        **{key: tested[name] for name, key in TESTED.items()},
        "required_packages_version": {project["name"]: f">={__version__}", **required},
    }


def set_value(config: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its id; see the module's docstring for ``+`` and ``{common}``.

    Raises:
        ValueError: the id is not in the configuration.
    """
    *parents, last = name.lstrip("+").split("::")
    place: Any = config
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    # the channels of an image are numbered, and a bundle may add some
    if not isinstance(place, dict) or (last not in place and not last.isdecimal()):
        raise ValueError(f"there is no id {name!r} in the common configuration")
    if name.startswith("+"):
        place[last] = [*place[last], *value]
    else:
        place[last] = value.replace("{common}", place[last]) if "{common}" in str(value) else copy.deepcopy(value)


def insert_before(config: Mapping[str, Any], name: str, added: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with keys inserted before one of its keys."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        result |= {**added, key: value} if key == name else {key: value}
    return result


def bundle_files(differences: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all generated files of a bundle by name."""
    config = inference_config(differences)
    others = {name: evaluation_config() if name == "evaluate.json" else read(COMMON / name) for name in SAME}
    own = {"metadata.json": metadata(differences, config), **presets(differences, config)}
    return {"inference.json": config, **own, **others}


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    return json.loads(path.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. The exit status is 1 if a bundle is invalid or, with --check, if a file differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=REPOSITORY / "bundles", help="folder of the bundles")
    parser.add_argument("--check", action="store_true", help="print the files that differ, and write nothing")
    options = parser.parse_args(arguments)
    failed = False
    for path in sorted(options.bundles.glob("*.json")):
        try:
            files = bundle_files(read(path))
        except ValueError as error:
            sys.stderr.write(f"{path}: {error}\n")
            failed = True
            continue
        for name, content in files.items():
            text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
            failed |= not _settle(path.with_suffix("") / "configs" / name, text, options.check)
    return int(failed)


def _settle(path: Path, text: str, check: bool) -> bool:
    """Write a file if it differs; with ``check``, report it instead and return False."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return True
    if check:
        sys.stderr.write(f"{path} is not up to date: run python scripts/sync_bundles.py\n")
        return False
    path.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
