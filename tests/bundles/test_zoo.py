# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The checks of MONAI's model zoo on every bundle, and the entries for its ``hf_models``."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import zoo_rules as zoo
from monai.bundle import verify_metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path for path in (REPOSITORY / "bundles").iterdir() if path.is_dir())
#: those whose weights are on the Hub
OF_THE_HUB = [path for path in BUNDLES if path.name != "medpruner_phantom"]


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request):
    return request.param


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("hf_model", REPOSITORY / "scripts" / "hf_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def excluded(bundle):
    """The exclusion lists of the zoo that the README asks for."""
    return set(re.findall(r"`(exclude_verify_\w+_list)`", (bundle / "docs" / "README.md").read_text(encoding="utf-8")))


def test_readme_names_the_exclusion_lists(bundle):
    """No list too few, and none without a reason."""
    assert excluded(bundle) == zoo.needed_exclusions(bundle)
    assert "ci/bundle_custom_data.py" in (bundle / "docs" / "README.md").read_text(encoding="utf-8")


def test_files_and_license(bundle):
    zoo.verify_bundle_directory(bundle, excluded(bundle))
    assert (bundle / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    with pytest.raises(ValueError, match=r"models/model\.pt"):
        zoo.verify_bundle_directory(bundle, set())


def test_large_files(bundle):
    """None is listed, as nothing in a bundle needs it."""
    assert zoo.large_files(bundle) == []
    assert max(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) < 25 * 2**20


def test_version(bundle):
    zoo.verify_version_changes(zoo.read_metadata(bundle / "configs" / "metadata.json"))


def test_requirements_install(bundle):
    """Each is one that pip reads, and the tested set of versions meets all of them.

    ``scripts/check_zoo_requirements`` lets pip resolve them.
    """
    lines = zoo.requirements(zoo.read_metadata(bundle / "configs" / "metadata.json"))
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    tested = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in pins}
    found = [Requirement(line) for line in lines]
    assert {"monai", "torch", "numpy", "transformers", "monai-medpruner"} <= {one.name for one in found}
    for one in found:
        assert str(one.specifier), one
        if one.name != "monai-medpruner":
            assert one.specifier.contains(tested[canonicalize_name(one.name)]), one


# hf_models


@pytest.mark.parametrize("source", OF_THE_HUB, ids=lambda path: path.name)
def test_entry_of_hf_models(script, source, tmp_path, capsys):
    folder = tmp_path / "hf_models" / source.name
    assert script.main([str(source), str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    zoo.verify_hf_model_directory(folder)
    metadata = zoo.read_metadata(folder / "metadata.json")
    zoo.verify_version_changes(metadata)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(zoo.HF_SCHEMA))
    verify_metadata(meta_file=str(folder / "metadata.json"), filepath=str(schema))
    assert all(Requirement(line) for line in zoo.requirements(metadata))
    of_bundle = zoo.read_metadata(source / "configs" / "metadata.json")
    assert all(metadata[name] == of_bundle[name] for name in script.FIELDS)

    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert metadata["huggingface_url"] in readme
    assert "Not for clinical use" in readme
    assert "exclude_verify" not in readme
    assert "monai.bundle run" not in readme
    titles = re.findall(r"^#{1,2} (.+)$", re.sub(r"```.*?```", "", readme, flags=re.DOTALL), flags=re.MULTILINE)
    assert titles[0] == "Model Overview"
    assert {"Data", "Usage", "Disclaimer", "References", "License", "Model Weights License"} <= set(titles)
    assert (folder / "LICENSE").read_bytes() == (source / "LICENSE").read_bytes()
    assert metadata["huggingface_url"] in (folder / "data_license.txt").read_text(encoding="utf-8")


def test_a_bundle_with_its_own_weights_has_no_entry(script, tmp_path):
    with pytest.raises(ValueError, match="not on the Hub"):
        script.write_entry(REPOSITORY / "bundles" / "medpruner_phantom", tmp_path)
    assert list(tmp_path.iterdir()) == []


# tests of the rules


def test_rules_find_faults(tmp_path):
    source = BUNDLES[0]
    copy = tmp_path / source.name
    shutil.copytree(source, copy)
    everything = excluded(source)
    for name in zoo.NECESSARY:
        content = (copy / name).read_bytes()
        (copy / name).unlink()
        with pytest.raises(ValueError, match=name):
            zoo.verify_bundle_directory(copy, everything)
        (copy / name).write_bytes(content)
    (copy / "models").mkdir(exist_ok=True)
    (copy / "models" / "model.pt").write_bytes(b"")
    assert zoo.PREFERRED_LIST not in zoo.needed_exclusions(copy)
    zoo.verify_bundle_directory(copy, set())
    (copy / "configs" / "inference.json").unlink()
    with pytest.raises(ValueError, match="inference config"):
        zoo.verify_bundle_directory(copy, set())
    with pytest.raises(ValueError, match="README"):
        zoo.verify_hf_model_directory(tmp_path)
    for faulty in ({"changelog": {}}, {"version": "1.0.0"}, {"version": "1.0.0", "changelog": {"0.9.0": "first"}}):
        with pytest.raises(ValueError, match="missing"):
            zoo.verify_version_changes(faulty)
    assert zoo.requirements({"required_packages_version": {"a": "1.0", "b": " >=2", "c": "==3"}}) == [
        "a==1.0",
        "b>=2",
        "c==3",
    ]
