# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The checks of MONAI's model zoo, transcribed from ``ci/verify_bundle.py``, ``ci/get_bundle_requirements.py`` and
``ci/verify_hf_model.py`` of Project-MONAI/model-zoo. Each raises as the zoo's script does.

The schemas of metadata are release assets that were not available; that of ``hf_models`` is what its entries agree on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

NECESSARY = ("configs/metadata.json", "LICENSE")
PREFERRED_LIST, TORCHSCRIPT_LIST, SHAPE_LIST = (
    f"exclude_verify_{name}_list" for name in ("preferred_files", "torchscript", "shape")
)
HF_FILES = ("README.md", "LICENSE", "metadata.json")
_TEXT = {"type": "string", "minLength": 1}
#: what all entries of hf_models have
HF_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "schema": {"const": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
                   "meta_schema_hf_20250321.json"},
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "changelog": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
        **{key: {"pattern": r"^\d+(\.\d+)*$"} for key in ("monai_version", "pytorch_version", "numpy_version")},
        "required_packages_version": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
        **dict.fromkeys(("name", "task", "description", "copyright", "data_source", "data_type"), _TEXT),
        "image_classes": _TEXT,
        "authors": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
        "huggingface_model_id": {"type": "string", "pattern": r"^[^/ ]+/[^/ ]+$"},
        "huggingface_url": {"type": "string", "pattern": r"^https://huggingface\.co/"},
        "intended_use": _TEXT,
        "references": {"type": "array", "minItems": 1, "items": _TEXT},
    },
}  # fmt: skip
HF_SCHEMA["required"] = list(HF_SCHEMA["properties"])


def verify_bundle_directory(bundle: Path, excluded: set[str]) -> None:
    """Check necessary files, and preferred ones unless the bundle is excluded from that."""
    for file in NECESSARY:
        if not (bundle / file).exists():
            raise ValueError(f"necessary file {file} is not existing.")
    if PREFERRED_LIST in excluded:
        return
    if not any((bundle / "configs" / f"inference.{suffix}").exists() for suffix in ("json", "yaml", "yml")):
        raise ValueError("inference config file is not existing.")
    if not (bundle / "models" / "model.pt").exists():
        raise ValueError("necessary file models/model.pt is not existing.")


def large_files(bundle: Path) -> list[dict[str, Any]]:
    """The files that the zoo downloads, by the bundle's ``large_files``."""
    found = [bundle / f"large_files.{suffix}" for suffix in ("json", "yaml", "yml")]
    return [entry for path in found if path.exists() for entry in ConfigParser.load_config_file(path)["large_files"]]


def verify_version_changes(metadata: dict[str, Any]) -> None:
    """Check that the version is in the changelog."""
    for name in ("version", "changelog"):
        if name not in metadata:
            raise ValueError(f"'{name}' is missing")
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(f"version number: {metadata['version']} is missing in 'changelog'")


def requirements(metadata: dict[str, Any]) -> list[str]:
    """The lines that the zoo gives to pip."""
    lines = [
        f"{package}=={metadata[key]}"
        for package, key in (("monai", "monai_version"), ("torch", "pytorch_version"), ("numpy", "numpy_version"))
        if key in metadata
    ]
    for key in ("optional_packages_version", "required_packages_version"):
        for name, version in metadata.get(key, {}).items():
            text = version.strip()
            lines.append(f"{name}{text}" if text[0] in "<>=" else f"{name}=={text}")
    return lines


def needed_exclusions(bundle: Path) -> set[str]:
    """The lists of ``ci/bundle_custom_data.py`` that must name a bundle, so that the zoo's checks can pass."""
    lists = {TORCHSCRIPT_LIST}  # models of transformers are loaded, not exported
    listed = [entry["path"] for entry in large_files(bundle)]
    if "models/model.pt" not in listed and not (bundle / "models" / "model.pt").exists():
        lists.add(PREFERRED_LIST)
    if not any((bundle / "models").glob("*/model.safetensors")):
        lists.add(SHAPE_LIST)  # the check would load the weights from the Hub
    return lists


def verify_hf_model_directory(folder: Path) -> None:
    """Check the files of an entry of ``hf_models``."""
    for file in HF_FILES:
        if not (folder / file).exists():
            raise ValueError(f"necessary file {file} is not existing.")


def read_metadata(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
