# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The files of every bundle follow MONAI's specification and the zoo's rules, and match this package."""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import metadata_rules as rules
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata
from monai.bundle.properties import InferProperties
from monai.utils import BundleProperty, BundlePropertyConfig
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from monai_medpruner import __version__
from monai_medpruner.requirements import check_required_packages
from monai_medpruner.testing import tiny_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path for path in (REPOSITORY / "bundles").iterdir() if path.is_dir())
#: the bundle whose models are its own and lie in it
OWN = "medpruner_phantom"
PINNED = re.compile(r"[0-9a-f]{40}")


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request):
    """The folder of each bundle."""
    return request.param


@pytest.fixture
def metadata(bundle):
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


@pytest.fixture
def config(bundle):
    return ConfigParser.load_config_file(bundle / "configs" / "inference.json")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def constraints():
    """The pinned version of every package, by canonical name."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def lower_bounds(project):
    """The minimum version of each dependency that has one, with its operator."""
    parsed = [Requirement(line) for line in project["dependencies"]]
    return {one.name: f">={bound.version}" for one in parsed for bound in one.specifier if bound.operator == ">="}


# the zoo's rules


def test_metadata_follow_the_specification(metadata):
    assert rules.metadata_faults(metadata) == []


def test_monai_verifies_the_metadata(bundle, tmp_path):
    """MONAI's command, with our transcription of the zoo's schema, which it would download."""
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(rules.METADATA_SCHEMA))
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps({"schema": "https://example.org/meta_schema.json", "version": "0.1.0"}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(broken), filepath=str(schema))


def test_files(bundle):
    assert rules.file_faults(bundle) == []
    assert (bundle / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_config_keys(config):
    assert rules.config_faults(config) == []


def test_readme(bundle):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert rules.readme_faults(text) == []
    assert "Not for clinical use" in text


def test_data_license(bundle, metadata):
    text = (bundle / "docs" / "data_license.txt").read_text(encoding="utf-8")
    assert rules.license_faults(text) == []
    if bundle.name != OWN:
        assert metadata["huggingface_url"] in text
        assert metadata["huggingface_revision"] in text


def test_properties_by_exact_reference(bundle, config):
    """All properties of an inference bundle exist, and evaluator and data set refer to them by id."""
    parser = ConfigParser(config)
    for name, item in InferProperties.items():
        property_id, reference = item[BundlePropertyConfig.ID], item.get(BundlePropertyConfig.REF_ID)
        if item[BundleProperty.REQUIRED]:
            assert property_id in parser, name
        if reference is not None and reference in parser:
            assert parser.get(reference) == f"@{property_id}", name
            assert property_id in parser, name
    for reference, property_id in {
        "dataset::transform": "preprocessing",
        "evaluator::val_handlers": "handlers",
        "evaluator::network": "network_def",
        "evaluator::inferer": "inferer",
        "evaluator::device": "device",
    }.items():
        assert parser.get(reference) == f"@{property_id}"


# consistency with other files


def test_weights_are_pinned(bundle, metadata, config):
    if bundle.name == OWN:
        assert not any(name.startswith("huggingface") for name in metadata)
        assert config["model_id"] == "$@bundle_root + '/models/' + @family"
        return
    model, revision = metadata["huggingface_model_id"], metadata["huggingface_revision"]
    assert PINNED.fullmatch(revision)
    assert metadata["huggingface_url"] == f"https://huggingface.co/{model}"
    if config["revision"] is None:
        # a folder of the bundle, which the user converts from the pinned checkpoint as the README says
        name = model.split("/")[1]
        assert config["model_id"] == f"$@bundle_root + '/models/{name}'"
        text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
        assert f"hf download {model} --revision {revision} --local-dir {name}-published\n" in text
        assert re.search(rf"^python -m monai_medpruner convert_\w+ {name}-published models/{name}$", text, re.MULTILINE)
    else:
        assert (config["model_id"], config["revision"]) == (model, revision)


def test_required_packages_are_the_projects(metadata, project):
    """They are the lower bounds of the project, except for the three packages with their own keys."""
    required = metadata["required_packages_version"]
    expected = {project["name"]: f">={__version__}", **lower_bounds(project)}
    own_keys = {"monai", "torch", "numpy"}
    assert required == {name: version for name, version in expected.items() if name not in own_keys}
    for name in required:
        assert distribution(name).files is not None, name
    check_required_packages(required)


@pytest.mark.parametrize(
    ("key", "package"), [("monai_version", "monai"), ("pytorch_version", "torch"), ("numpy_version", "numpy")]
)
def test_versions_are_the_tested_ones(metadata, constraints, project, key, package):
    assert metadata[key] == constraints[package]
    check_required_packages({package: lower_bounds(project)[package]})


def test_constraints_pin_every_dependency(constraints, project):
    """Those of the package and its development; optional services are not installed for the tests."""
    extras = project["optional-dependencies"]
    for line in project["dependencies"] + extras["test"] + extras["dev"]:
        requirement = Requirement(line)
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(constraints[canonicalize_name(requirement.name)]), line


def test_input_and_output(metadata):
    data = metadata["network_data_format"]
    image, prediction = data["inputs"]["image"], data["outputs"]["pred"]
    assert image["num_channels"] in (1, 3)
    assert image["value_range"] == [0, 1]
    assert len(image["spatial_shape"]) == 3
    assert image["dtype"] == prediction["dtype"] == "float32"
    assert len(prediction["spatial_shape"]) == 1
    for text in (data["inputs"]["question"], data["post_processed_outputs"]["answer"]):
        assert (text["format"], text["dtype"]) == ("sequence", "str")


def test_commands_of_the_readme_use_existing_settings(bundle, metadata):
    own = {"config_file", "meta_file", "net_id", "filepath"}
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m monai\.bundle .+$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        files = re.findall(r"configs/\w+\.json", command.partition("--config_file")[2])
        parser = ConfigParser({"_meta_": metadata})
        parser.read_config([bundle / file for file in files])
        for name in set(re.findall(r" --([\w:]+)", command)) - own:
            assert name in parser, (name, command)
    for name in {path for command in commands for path in re.findall(r"configs/\w+\.\w+", command)}:
        assert (bundle / name).is_file(), name


def test_channels_of_the_tiny_model_in_the_readme(bundle, config):
    tiny = tiny_model(config.get("family", config["model_type"]))
    channels = tiny.config(300, dict.fromkeys(tiny.tokens, 0)).get_text_config().hidden_size
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"::pred::num_channels (\d+)$", text, flags=re.MULTILINE) == [str(channels)]
    assert f"the tiny one has {channels}." in text


def test_logging(bundle, capsys):
    """Applied as by MONAI: messages of this package are shown, those of libraries are not; no file is written."""
    root, package = logging.getLogger(), logging.getLogger("monai_medpruner")
    before = root.handlers[:], root.level, package.level
    try:
        ConfigWorkflow(config_file=str(bundle / "configs" / "inference.json"), workflow_type="infer")
        logging.getLogger("monai_medpruner.handlers").info("an answer is written")
        logging.getLogger("some.library").info("GET https://example.org")
        assert not any(isinstance(handler, logging.FileHandler) for handler in root.handlers)
    finally:
        root.handlers, root.level, package.level = before
    printed = capsys.readouterr().out
    assert "an answer is written" in printed
    assert "example.org" not in printed


# tests of the rules


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", None),
        ("version", "0.2.0"),
        ("version", "first"),
        ("schema", "schema.json"),
        ("changelog", {}),
        ("monai_version", ">=1.6"),
        ("required_packages_version::itk", 5.4),
        ("name", None),
        ("task", ""),
        ("authors", ["A", "B"]),
        ("eval_metrics", {"accuracy": "good"}),
        ("references", "a paper"),
        ("network_data_format::inputs::image", None),
        ("network_data_format::inputs::image", "a volume"),
        ("network_data_format::inputs::image::modality", None),
        ("network_data_format::inputs::image::num_channels", "1"),
        ("network_data_format::inputs::image::spatial_shape", ["any"]),
        ("network_data_format::inputs::image::spatial_shape", "*"),
        ("network_data_format::inputs::question", ["text"]),
        ("network_data_format::outputs::pred", None),
        ("network_data_format::outputs::pred::is_patch_data", "false"),
        ("network_data_format::outputs::pred::channel_def", {"first": "channel"}),
        ("network_data_format::labels", {}),
    ],
)
def test_rules_find_faulty_metadata(metadata, path, value):
    *parents, key = path.split("::")
    node = faulty = copy.deepcopy(metadata)
    for name in parents:
        node = node[name]
    if value is None:
        del node[key]
    else:
        node[key] = value
    assert len(rules.metadata_faults(faulty)) >= 1
    assert rules.metadata_faults(metadata) == []


def test_rules_find_faulty_files(bundle, metadata, tmp_path):
    files = {path.relative_to(bundle): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for path, content in files.items():
        optional = ("evaluate.json", "multi_gpu_evaluate.json", "sweep.json", "train.json")
        if path.name in optional or path.name.startswith("preset_"):
            continue  # the zoo asks for none of them
        if path.parts[0] == "models":
            continue
        (tmp_path / path).unlink()
        assert f"{path.as_posix()} is missing" in rules.file_faults(tmp_path)
        (tmp_path / path).write_bytes(content)
    assert rules.file_faults(tmp_path) == []

    for model in tmp_path.glob("models/*/model.safetensors"):
        model.unlink()
    metadata.pop("huggingface_revision", None)
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata))
    assert rules.file_faults(tmp_path) == ["models/model.pt is missing, and the metadata name no Hub model"]
    (tmp_path / "large_files.yml").write_text("large_files:\n  - path: models/model.pt\n    url: https://example.org\n")
    missing = ["large file models/model.pt lacks hash_val", "large file models/model.pt lacks hash_type"]
    assert rules.file_faults(tmp_path) == missing
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(rules.MAX_FILE_BYTES + 1)
    assert rules.file_faults(tmp_path) == [*missing, "weights.bin is over 25 MB"]


def test_rules_find_a_faulty_config(config):
    assert rules.config_faults({**config, "image": "/home/someone/ct.nii.gz"}) == [
        'a personal path: "/home/someone/ct.nii.gz"'
    ]
    del config["output_dir"]
    assert rules.config_faults(config) == ["output_dir is missing"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("## Data\n", ""),
        ("## Input\n", "## Inputs\n"),
        ("# References\n", "# License\n"),
        ("## Performance\n", "## Performance\n\n## Extra\n"),
    ],
)
def test_rules_find_a_faulty_readme(bundle, old, new):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert text.count(old) == 1
    assert rules.readme_faults(text.replace(old, new)) != []


def test_rules_find_a_readme_out_of_order(bundle):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    swapped = text.replace("## Input\n", "## X\n").replace("## Output\n", "## Input\n").replace("## X\n", "## Output\n")
    assert len(rules.readme_faults(swapped)) == 1
