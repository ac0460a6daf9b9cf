# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training: the loss decreases, results are reproducible, and a resumed run equals an uninterrupted one."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.transforms import Compose

from monai_medpruner.data.phantom import PhantomSettings
from monai_medpruner.networks.checkpoint import load_model
from monai_medpruner.training import (
    PhantomPool,
    VisionWarmUp,
    WarmUpBatches,
    WarmUpLoss,
    prepare_labeled_batch,
    untrained_network,
)
from monai_medpruner.transforms import CheckVolumed, IntensityWindowsd, SlicePlaned

FAMILIES = ["qwen3_vl", "gemma3", "video_llama_3"]
SETTINGS = PhantomSettings(in_plane_sizes=(96,), depth=(8, 8), field_of_view_mm=(400, 400), lesion_diameter_mm=(20, 30))


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture
def train(repository, phantom_dir):
    """Return a function that runs the training with overrides and returns the folder of the run."""
    bundle = repository / "bundles" / "medpruner_phantom"

    def run(folder, **overrides):
        toy = {
            "warm_up_phantoms": 36,
            "warm_up_epochs": 2,
            "warm_up_steps": 2,
            "warm_up_slices": 6,
            "answer_phantoms": 36,
            "answer_epochs": 2,
            "answer_steps": 2,
            "answer_volumes": 2,
            "answer_questions": 2,
            "device": "cpu",
            "settings": SETTINGS,
            "warm_up::pool::added_lesions": 1,
            **{f"{stage}::pool::workers": 1 for stage in ("warm_up", "answers")},
        }
        workflow = ConfigWorkflow(
            config_file=str(bundle / "configs" / "train.json"),
            workflow_type="train",
            logging_file=False,
            bundle_root=str(bundle),
            output_dir=str(folder),
            phantom_dir=str(phantom_dir),
            **{**toy, **overrides},
        )
        workflow.initialize()
        workflow.run()
        return folder

    return run


def weights(folder, family="qwen3_vl"):
    return load_model(str(folder / family / "model"), dtype="float32", device="cpu").state_dict()


def test_resumed_run_equals_an_uninterrupted_one(train, tmp_path):
    """Interrupting either stage does not change the final weights; another seed does."""
    whole = weights(train(tmp_path / "whole"))
    broken = tmp_path / "broken"
    train(broken, **{"warm_up::trainer::max_epochs": 1, "run": ["$@warm_up::trainer.run()"]})
    train(
        broken, **{"answers::trainer::max_epochs": 1, "run": ["$@warm_up::trainer.run()", "$@answers::trainer.run()"]}
    )
    resumed = weights(train(broken))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    other = weights(train(tmp_path / "other", seed=1))
    assert not all(torch.equal(value, other[name]) for name, value in whole.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_stage_trains_only_its_part(train, tmp_path, family):
    """The second stage changes only the language model, not the encoder from the warm-up."""
    run = train(tmp_path, family=family)
    started = torch.load(next((run / family / "warm_up").glob("*.pt")), weights_only=False)["network"]
    ended = torch.load(next((run / family / "answers").glob("*.pt")), weights_only=False)["network"]
    changed = {name for name, value in ended.items() if not torch.equal(value, started[name])}
    assert changed
    assert all("language_model" in name or "lm_head" in name for name in changed)
    config = json.loads((run / family / "model" / "config.json").read_text())
    assert config["dtype"] == "float16"
    assert (run / family / "model" / "model.safetensors").stat().st_size < 6e6


def test_the_loss_decreases(phantom_dir, tmp_path):
    """Twelve steps on one batch."""
    network = VisionWarmUp(untrained_network("gemma3", str(tmp_path), device="cpu"))
    preprocessing = Compose(
        [
            CheckVolumed("image"),
            SlicePlaned(["image", "organs", "lesion"]),
            IntensityWindowsd("image", windows=[[-160, 340]]),
        ]
    )
    pool = PhantomPool(phantom_dir, 3, 36, SETTINGS, preprocessing, workers=1)
    batches = WarmUpBatches(pool, 8, 0.5, 0, 1, (0.1, 0.7), (1, 2), 1, 0)
    optimizer = torch.optim.AdamW(network.trained_parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        image, label = prepare_labeled_batch(batches[0])
        loss = WarmUpLoss()(network(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
