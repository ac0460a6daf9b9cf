# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The presets ``released`` and ``makers``: what they set, and what the models get, computed without this package."""

from __future__ import annotations

import json
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_medpruner.bundles import open_bundle
from monai_medpruner.cli.main import main
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.pruners import MedPrunerReleasedPruner, NucleusPruner
from monai_medpruner.settings import bundle_folders, setting_overrides

QWEN, MEDGEMMA, HULUMED, PHANTOM = (f"medpruner_{name}" for name in ("qwen3vl", "medgemma", "hulumed", "phantom"))
BUNDLES = [QWEN, MEDGEMMA, HULUMED]


def parsed(bundle, preset, configs=("inference",), **given):
    """The configuration of a bundle under a preset, by our command and by MONAI's, which agree."""
    folder = bundle_folders()[bundle]
    files = [folder / "configs" / f"{name}.json" for name in configs]
    ours, monais = ConfigParser(), ConfigParser()
    ours.read_config(files)
    ours.update(setting_overrides(folder, {"preset": preset, **given}))
    monais.read_config([*files, folder / "configs" / f"preset_{preset}.json"])
    monais.update(setting_overrides(folder, given))
    for name in ("prompt", "token_pruner"):
        assert ours.get_parsed_content(name) == monais.get_parsed_content(name)
    return ours


def stages(parser):
    """The array form of each transform by its name."""
    every = [one for stage in parser.get_parsed_content("preprocessing").transforms for one in stage.transforms]
    return {type(one.array_form).__name__: one.array_form for one in every}


def preprocessed(bundle, preset, image, **given):
    """What the transforms of a bundle make of a file."""
    folder = bundle_folders()[bundle]
    overrides = setting_overrides(folder, {"preset": preset, "model": "tiny", "device": "cpu", **given})
    workflow = open_bundle(folder, overrides, items=[{"image": str(image), "question": ["a?"]}])
    return workflow.parser.get_parsed_content("preprocessing")({"image": str(image)})["image"]


@pytest.mark.parametrize(("benchmark", "limit"), [("m3d_vqa", 600), ("rad3d", 1800), ("amos_mm", None)])
@pytest.mark.parametrize("bundle", [*BUNDLES, PHANTOM])
def test_released_settings(bundle, benchmark, limit):
    parser = parsed(bundle, "released", ("inference", "evaluate"))
    parser.update({"benchmark": benchmark})
    found = stages(parser)
    assert found["InterSliceAnchorFilter"].threshold is None  # all slices are encoded
    assert (found["SliceLimit"].max_slices, found["SliceLimit"].rule) == (limit, "linspace")
    assert found["IntensityWindows"].windows == "auto"  # its files are gray images
    temperature = 1.0 if bundle == HULUMED else 2.0
    expected = MedPrunerReleasedPruner(tau=0.9, temperature=temperature, threshold=0.05)
    assert parser.get_parsed_content("token_pruner") == expected
    prompt = parser.get_parsed_content("prompt")
    assert (prompt.instruction, prompt.after_slice, prompt.system) == ("", "", "")
    assert prompt.before_slice == ("SLICE {place}: " if bundle == MEDGEMMA else "")
    assert stages(parsed(bundle, "released"))["SliceLimit"].max_slices is None


@pytest.mark.parametrize("bundle", [*BUNDLES, PHANTOM])
def test_makers_settings(bundle):
    parser = parsed(bundle, "makers")
    found = stages(parser)
    assert found["InterSliceAnchorFilter"].threshold is None
    assert parser.get_parsed_content("token_pruner") is None
    limit, plane = found["SliceLimit"], found["SlicePlane"]
    recipe = {
        QWEN: (None, "linspace", "radiological", "position", False, 256),
        MEDGEMMA: (85, "medgemma", "radiological", "instance_number", True, 2000),
        HULUMED: (180, "linspace", "as_stored", "position", False, 8192),
        PHANTOM: (None, "linspace", "radiological", "position", False, 16),
    }[bundle]
    jpeg = found["JpegSlices"].jpeg
    assert (limit.max_slices, limit.rule, plane.orientation, plane.slice_order, jpeg) == recipe[:5]
    assert parser["max_new_tokens"] == recipe[5]
    assert parser.get_parsed_content("token_budget") == (16384 if bundle == HULUMED else None)


def test_values_that_are_given_win():
    parser = parsed(
        MEDGEMMA, "makers", jpeg="false", slice_order="position", max_slices="40", system_prompt="Be brief."
    )
    found = stages(parser)
    assert (found["JpegSlices"].jpeg, found["SlicePlane"].slice_order) == (False, "position")
    assert found["SliceLimit"].max_slices == 40
    assert parser.get_parsed_content("prompt").system == "Be brief."
    parser = parsed(QWEN, "released", pruner="nucleus", tau="0.5", max_slices="7")
    assert parser.get_parsed_content("token_pruner") == NucleusPruner(tau=0.5)
    assert stages(parser)["SliceLimit"].max_slices == 7
    parser = parsed(QWEN, "released", **{"token_pruner::threshold": "0.1"})
    assert parser.get_parsed_content("token_pruner").threshold == 0.1


@pytest.mark.parametrize("folder", ["ct_torso_dicom", "ct_head_tilted_dicom"])
@pytest.mark.parametrize("count", [9, 85])
def test_slices_of_googles_notebook(shared_data, folder, count):
    """Sorted by InstanceNumber, 85 or fewer of them, three windows, JPEG: as the notebook does with pydicom."""
    pydicom = pytest.importorskip("pydicom")
    path = shared_data(folder)
    series = sorted((pydicom.dcmread(file) for file in path.iterdir()), key=lambda one: int(one.InstanceNumber))
    if len(series) > count:
        series = [series[round(place / count * (len(series) - 1))] for place in range(1, count + 1)]
    expected = []
    for one in series:
        hu = one.pixel_array.astype(np.float32) * float(one.RescaleSlope) + float(one.RescaleIntercept)
        windows = [(-1024, 1024), (-135, 215), (0, 80)]
        rgb = np.stack([(np.clip(hu, low, high) - low) / (high - low) * 255 for low, high in windows], axis=-1)
        file = BytesIO()
        Image.fromarray(np.round(rgb).astype(np.uint8)).save(file, "jpeg")
        expected.append(np.asarray(Image.open(file)))
    ours = [np.asarray(one) for one in slice_images(preprocessed(MEDGEMMA, "makers", path, max_slices=str(count)))]
    assert len(ours) == len(expected) == min(count, len(list(path.iterdir())))
    # a slope of the windows in float32 moves a level where it lies between two
    assert np.mean([np.abs(one.astype(int) - other).max() <= 8 for one, other in zip(ours, expected, strict=True)]) == 1
    assert np.mean([(one == other).mean() for one, other in zip(ours, expected, strict=True)]) > 0.999


def test_slices_of_hulu_meds_loader(shared_data):
    """``get_fdata()[:, :, k]`` scaled by minimum and maximum; gray levels are rounded, which the loader cuts off."""
    path = shared_data("ct_torso_nifti/ct_small.nii.gz")
    voxels = nib.load(path).get_fdata()
    chosen = np.linspace(0, voxels.shape[2] - 1, 12, dtype=int)
    ours = preprocessed(HULUMED, "makers", path, max_slices="12")
    assert ours.meta["kept_indices"] == chosen.tolist()
    for place, index in enumerate(chosen):
        one = voxels[:, :, index]
        scaled = (one - one.min()) / (one.max() - one.min())
        assert np.allclose(ours[0, :, :, place].numpy(), scaled, atol=1e-6)


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("preset", ["released", "makers"])
def test_asked(shared_data, tmp_path, capsys, bundle, preset):
    """One word on our command; the line tells what it stood for."""
    words = ["--image", str(shared_data("ct_torso_nifti/ct_small.nii.gz")), "--question", "Is there an effusion?"]
    given = ["--bundle", bundle, "--model", "tiny", "--device", "cpu", "--slices", "3:9", "--max_new_tokens", "3"]
    if preset == "released":  # random weights attend evenly
        given += ["--tau", "0.5"]
    main(["ask", *words, *given, "--preset", preset, "--output_dir", str(tmp_path)])
    (line,) = [json.loads(text) for text in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert line["settings"]["preset"] == preset
    assert line["slices"]["indices"] == list(range(3, 9))
    assert sum(line["tokens"]["per_slice"]) == line["tokens"]["kept"]
    if preset == "makers":
        assert line["settings"]["pruner"] is None
        assert line["retention"]["overall"] == 1
    else:
        assert line["settings"]["pruner"]["name"] == "medpruner_released"
        # retention against the slices that were fed, which are all
        assert line["retention"]["slices"] == 1
        assert line["retention"]["tokens_per_kept_slice"] == line["retention"]["overall"] < 1
    described = {
        one["name"]: one["arguments"] for part in line["settings"]["preprocessing"] for one in part["transforms"]
    }
    assert described["JpegSlices"]["jpeg"] is (preset == "makers" and bundle == MEDGEMMA)
    assert described["SlicePlane"]["orientation"] == (
        "as_stored" if preset == "makers" and bundle == HULUMED else "radiological"
    )


def test_a_system_prompt_reaches_the_prompt(shared_data, tmp_path, capsys):
    image = str(shared_data("ct_torso_nifti/ct_small.nii.gz"))
    folder = bundle_folders()[QWEN]
    texts = {"model": "tiny", "device": "cpu", "slices": "3:5", "gamma": "none", "system_prompt": "You are terse."}
    workflow = open_bundle(folder, setting_overrides(folder, texts), items=[{"image": image, "question": ["a?"]}])
    network = workflow.network_def
    from monai_medpruner.engines import Conversation

    study = network.encode(workflow.parser.get_parsed_content("preprocessing")({"image": image})["image"])
    text = network.engine.prompt_text(study, Conversation.about(network.prompt, "a?"))
    assert text.startswith("<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\n")
    assert isinstance(network.answer(study, "a?").text, str)
    assert torch.is_tensor(study.tokens[0])
