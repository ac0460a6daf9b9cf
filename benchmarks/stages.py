# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure the time of each stage, pruned and unpruned, in one run on one volume.

The weights are random, because the time depends only on shapes and on the numbers of slices and tokens. τ is set to
keep about as many tokens as a trained model with its own setting. The answers are meaningless.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen3VLConfig

from monai_medpruner.engines import TransformersEngine, VolumeQA
from monai_medpruner.networks import Checkpoint, TransformersEncoder
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.transforms import IntensityWindows, InterSliceAnchorFilter, LoadVolume, SlicePlane

# dimensions of Qwen/Qwen3-VL-2B-Instruct; the vocabulary is that of the tiny tokenizer
SHAPES = {
    "2b": {
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "num_heads": 16,
            "intermediate_size": 4096,
            "patch_size": 16,
            "out_hidden_size": 2048,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        },
    },
    "tiny": {"vision_config": {}, "text_config": {}},
}
STAGES = ("encode", "select", "prefill", "decode")


def save_checkpoint(shape: str, folder: str) -> None:
    """Write a checkpoint of a shape with random weights."""
    save_tiny_checkpoint("qwen3_vl", folder)
    tiny = AutoConfig.from_pretrained(folder).to_dict()
    merged = {part: {**tiny[part], **SHAPES[shape][part]} for part in ("vision_config", "text_config")}
    config = Qwen3VLConfig(**{**tiny, **merged})
    AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    # the limit of the original checkpoint is 16 million pixels, far above the size of a slice
    path = Path(folder) / "preprocessor_config.json"
    processor = json.loads(path.read_text())
    processor["size"]["longest_edge"] = 2**24
    path.write_text(json.dumps(processor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("image", help="NIfTI file or DICOM folder")
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument("--gamma", type=float, default=0.05, help="threshold of the slice filter")
    parser.add_argument("--tau", type=float, default=0.05, help="nucleus threshold, for random weights")
    parser.add_argument("--modality", default="auto")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    volume = IntensityWindows(arguments.modality)(SlicePlane()(LoadVolume()(arguments.image)))
    filtered = InterSliceAnchorFilter(arguments.gamma)(volume)
    pruner = NucleusPruner(tau=arguments.tau)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(arguments.shape, folder)
        checkpoint = Checkpoint(folder, dtype=arguments.dtype, device=device)
        checkpoint.model  # noqa: B018 - loaded while the folder is there
    engine = TransformersEngine(checkpoint, max_new_tokens=8)

    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device.type == "cuda" else cpu
    print(f"Qwen3-VL {arguments.shape} shape, random weights, {arguments.dtype}, {name}, torch {torch.__version__}")
    print(f"| | slices | tokens | {' | '.join(STAGES)} | encode to first token | ratio |")
    print("|---|---|---|" + "---|" * (len(STAGES) + 2))
    first = 0.0
    for label, slices, method in (
        ("unpruned", volume, None),
        ("slices filtered (IAF)", filtered, None),
        ("tokens pruned (DINS)", volume, pruner),
        ("both", filtered, pruner),
    ):
        network = VolumeQA(TransformersEncoder(checkpoint, method), engine)
        (study,) = network(slices[None], [["Is there a pleural effusion?"]])
        record = study.record
        seconds = {**record.seconds, **study.answers[0].seconds}
        total = sum(seconds[stage] for stage in STAGES[:3])
        first = first or total
        row = [label, len(record.slices), sum(record.kept_tokens), *(f"{seconds[stage]:.2f} s" for stage in STAGES)]
        print("| " + " | ".join(map(str, row)) + f" | {total:.2f} s | {first / total:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
