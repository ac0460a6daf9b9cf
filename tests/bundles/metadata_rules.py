# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules of MONAI and its model zoo for a bundle's files.

Both parts are **our own transcription**. :data:`METADATA_SCHEMA` transcribes the MONAI Bundle Specification
(https://docs.monai.io/en/latest/mb_specification.html, section "metadata.json File"); it is not the file that a
bundle's ``schema`` key points to, which is a release asset and was not available here. The functions transcribe the
zoo's ``ci/verify_bundle.py`` and CONTRIBUTING.md. Each returns what it finds wrong, one text per fault.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from monai.bundle import ConfigParser

__all__ = ["METADATA_SCHEMA", "config_faults", "file_faults", "license_faults", "metadata_faults", "readme_faults"]

MAX_FILE_BYTES = 25 * 2**20

_TEXT = {"type": "string", "minLength": 1}
_VERSION = {"type": "string", "pattern": r"^\d+(\.\d+)*$"}
# the zoo pins a version without an operator exactly
_SPECIFIER = {"type": "string", "pattern": r"^(>=|==|<=|<|>)?\d+(\.\d+)*$"}
_SIZE = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^(\*|[0-9pn*+\-/() ]+)$"}]}

_TENSOR = {
    "type": "object",
    "properties": {
        "type": _TEXT,
        "format": _TEXT,
        "modality": _TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": _SIZE},
        "dtype": _TEXT,
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "propertyNames": {"pattern": r"^\d+$"}, "additionalProperties": _TEXT},
    },
}
_TENSOR["required"] = list(_TENSOR["properties"])

# a value may be primitive instead of a tensor
_NAMED_VALUES = {
    "type": "object",
    "additionalProperties": {"anyOf": [_TENSOR, {"type": ["number", "string", "boolean"]}]},
}

METADATA_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "MONAI bundle metadata, transcribed from the specification",
    "type": "object",
    "properties": {
        "schema": {"type": "string", "pattern": r"^https://.*/meta_schema\w*\.json$"},
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "changelog": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
        "monai_version": _VERSION,
        "pytorch_version": _VERSION,
        "numpy_version": _VERSION,
        "required_packages_version": {"type": "object", "additionalProperties": _SPECIFIER},
        "supported_apps": {"type": "object"},
        "name": _TEXT,
        "task": _TEXT,
        "description": _TEXT,
        "authors": _TEXT,
        "copyright": _TEXT,
        "data_source": _TEXT,
        "data_type": _TEXT,
        "image_classes": _TEXT,
        "label_classes": _TEXT,
        "pred_classes": _TEXT,
        "eval_metrics": {"type": "object", "additionalProperties": {"type": "number"}},
        "intended_use": _TEXT,
        "references": {"type": "array", "items": _TEXT},
        "network_data_format": {
            "type": "object",
            "properties": {
                # used by verify_net_in_out
                "inputs": {**_NAMED_VALUES, "properties": {"image": _TENSOR}, "required": ["image"]},
                "outputs": {**_NAMED_VALUES, "properties": {"pred": _TENSOR}, "required": ["pred"]},
                "post_processed_outputs": _NAMED_VALUES,
            },
            "required": ["inputs", "outputs"],
            "additionalProperties": False,
        },
    },
    "required": [
        "schema",
        "version",
        "changelog",  # asked for by the zoo
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "name",  # asked for by the zoo
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    ],
}

# the order of most READMEs in the zoo; those with True are required
_README_SECTIONS = {
    "# Model Overview": True,
    "## Data": True,
    "## Training configuration": True,
    "## Input": True,
    "## Output": True,
    "## Performance": True,
    "## MONAI Bundle Commands": True,
    "# Disclaimer": False,
    "# References": True,
    "# License": True,
    "## Code License": False,
    "## Model Weights License": False,
}


def metadata_faults(metadata: dict[str, Any]) -> list[str]:
    """Check metadata against the specification, and that the changelog has its version."""
    validator = Draft202012Validator(METADATA_SCHEMA)
    faults = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(metadata)]
    if metadata.get("version") not in metadata.get("changelog", {}):
        faults.append(f"$.changelog: version {metadata.get('version')} is missing")
    return faults


def file_faults(bundle: Path) -> list[str]:
    """Check that the files of a bundle exist and that none is too large.

    ``models/model.pt`` may be missing where the metadata name the Hub's model that is loaded instead, as the zoo's
    ``hf_models`` do, or where the models are in the bundle in the Hub's own layout.
    """
    needed = ["LICENSE", "configs/metadata.json", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"]
    faults = [f"{name} is missing" for name in needed if not (bundle / name).is_file()]
    if not any((bundle / "configs" / f"inference.{suffix}").is_file() for suffix in ("json", "yaml", "yml")):
        faults.append("configs/inference.json is missing")
    listed = {entry["path"]: entry for entry in _large_files(bundle)}
    for path, entry in listed.items():
        faults += [f"large file {path} lacks {key}" for key in ("url", "hash_val", "hash_type") if not entry.get(key)]
    files = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    faults += [f"{name} is over 25 MB" for name, path in files.items() if path.stat().st_size > MAX_FILE_BYTES]
    if "models/model.pt" not in {*files, *listed} and not (_names_hub_model(bundle) or _holds_models(bundle)):
        faults.append("models/model.pt is missing, and the metadata name no Hub model")
    return faults


def _large_files(bundle: Path) -> list[dict[str, Any]]:
    found = [bundle / f"large_files.{suffix}" for suffix in ("yml", "yaml", "json")]
    return [entry for path in found if path.is_file() for entry in ConfigParser.load_config_file(path)["large_files"]]


def _holds_models(bundle: Path) -> bool:
    models = [path for path in (bundle / "models").glob("*") if path.is_dir()]
    return bool(models) and all(
        (one / name).is_file() for one in models for name in ("config.json", "model.safetensors")
    )


def _names_hub_model(bundle: Path) -> bool:
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return all(metadata.get(f"huggingface_{key}") for key in ("model_id", "revision", "url"))


def config_faults(config: dict[str, Any]) -> list[str]:
    """Check that an inference configuration has the keys that the zoo requires, and no personal path."""
    needed = ["bundle_root", "device", "network_def", "inferer", "output_dir"]
    faults = [f"{key} is missing" for key in needed if key not in config]
    faults += [
        f"a personal path: {text}" for text in re.findall(r'"(?:/home/|/Users/|/root|~)[^"]*"', json.dumps(config))
    ]
    return faults


def readme_faults(text: str) -> list[str]:
    """Check the sections of a README and their order."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^##? .+$", outside, flags=re.MULTILINE)
    faults = [
        f"section {title!r} is missing" for title, needed in _README_SECTIONS.items() if needed and title not in found
    ]
    faults += [f"section {title!r} is none of the zoo's" for title in found if title not in _README_SECTIONS]
    order = [title for title in _README_SECTIONS if title in found]
    if [title for title in found if title in _README_SECTIONS] != order:
        faults.append(f"sections stand in the order {found}, expected {order}")
    return faults


def license_faults(text: str) -> list[str]:
    """Check that the data license states terms and unintended uses."""
    return [
        f"{words!r} is missing" for words in ("Model weights", "Data\n", "Not for clinical use") if words not in text
    ]
