# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Write a bundle's entry for the ``hf_models`` of MONAI's model zoo: ``hf_model.py bundles/medpruner_qwen3vl FOLDER``.

The zoo keeps vision-language models there, whose weights stay on the Hugging Face Hub: a folder with ``metadata.json``,
``README.md`` and ``LICENSE``, and no configuration. The files are made from those of the bundle.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_hf_20250321.json"
#: fields of the zoo's entries, in their order
FIELDS = (
    *("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("name", "task", "description", "authors", "copyright", "data_source", "data_type", "image_classes"),
    *("huggingface_model_id", "huggingface_revision", "huggingface_url", "intended_use", "references"),
)


def write_entry(bundle: Path, destination: Path) -> Path:
    """Write the entry of a bundle.

    Args:
        bundle: folder of the bundle.
        destination: folder to write to, which is made.

    Returns:
        The folder.

    Raises:
        ValueError: the weights of the bundle are not on the Hub.
    """
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    if "huggingface_model_id" not in metadata:
        raise ValueError(f"the weights of {bundle.name} are not on the Hub, so it has no entry among hf_models")
    destination.mkdir(parents=True, exist_ok=True)
    entry = {"schema": SCHEMA, **{name: metadata[name] for name in FIELDS}}
    text = json.dumps(entry, indent=4, ensure_ascii=False) + "\n"
    (destination / "metadata.json").write_text(text, encoding="utf-8")
    shutil.copyfile(bundle / "LICENSE", destination / "LICENSE")
    shutil.copyfile(bundle / "docs" / "data_license.txt", destination / "data_license.txt")
    (destination / "README.md").write_text(_readme(bundle, entry), encoding="utf-8")
    return destination


def _readme(bundle: Path, entry: dict) -> str:
    """The bundle's README without what concerns the bundle alone: its exclusion lists and its commands."""
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    before, commands, after = text.partition("\n## MONAI Bundle Commands\n")
    disclaimer = after.find("\n# Disclaimer\n")
    if not commands or disclaimer < 0:
        raise ValueError(f"the README of {bundle.name} has no section of commands before its disclaimer")
    overview = [part for part in before.split("\n\n") if not part.startswith("**Model zoo.**")]
    usage = (
        f"## Usage\n\nThe weights are at [{entry['huggingface_model_id']}]({entry['huggingface_url']}). MONAI's bundle "
        f"commands run the complete bundle, `bundles/{bundle.name}` of the repository of `monai-medpruner`; so does\n\n"
        f'```\nmedpruner ask --bundle {bundle.name} --image ct.nii.gz --question "Is there a pleural effusion?"\n```\n'
    )
    return "\n\n".join(overview).rstrip("\n") + f"\n\n{usage}{after[disclaimer:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("destination", type=Path, help="folder to write to")
    options = parser.parse_args(arguments)
    sys.stdout.write(f"{write_entry(options.bundle, options.destination)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
