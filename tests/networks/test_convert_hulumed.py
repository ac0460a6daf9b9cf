# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Conversion from Hulu-Med's layout, which is written here by hand, to the native layout with equal outputs."""

from __future__ import annotations

import json
import re
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, VideoLlama3Config
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import CheckpointError, OutputFolderError
from monai_medpruner.networks import convert_hulumed as module
from monai_medpruner.networks.checkpoint import load_model, load_processors
from monai_medpruner.networks.convert_hulumed import convert_hulumed
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import save_tiny_checkpoint

INDEX = "model.safetensors.index.json"
# Hulu-Med's chat template; its processor passes image_token
TEMPLATE = """
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\n' }}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
            {{- image_token + '\n' }}
        {%- elif content['type'] == 'video' %}
            {%- for i in range(content['num_frames']) %}
                {{- image_token + (',' if i < content['num_frames'] - 1 else '\n') }}
            {%- endfor %}
        {%- else %}
            {{- content['text'] }}
        {%- endif %}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""


def original_key(key):
    """Return the name of a native weight in Hulu-Med's checkpoints."""
    key = re.sub(r"^model\.language_model\.", "model.", key)
    key = re.sub(r"^model\.projector\.", "model.mm_projector.", key)
    return re.sub(r"^model\.vision_model\.", "model.vision_encoder.", key)


def tiny_model(folder, text_type):
    """A native model for the tiny checkpoint's tokenizer."""
    config = VideoLlama3Config.from_pretrained(folder).to_dict()
    if text_type == "qwen3":
        config["text_config"] |= {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True}
        config["tie_word_embeddings"] = True
    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_config(VideoLlama3Config.from_dict(config)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.15)
            # values that 16 bits represent exactly, because Hulu-Med is stored in 16 bits
            weight.copy_(weight.bfloat16())
    return model


def flat_config(config, model_type):
    """Return the flat configuration of Hulu-Med's checkpoints."""
    text = config.text_config
    names = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act "
        "max_position_embeddings rms_norm_eps tie_word_embeddings attention_dropout initializer_range use_cache "
        "use_sliding_window sliding_window max_window_layers bos_token_id eos_token_id pad_token_id"
    ).split()
    vision = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
    return {
        **{name: getattr(text, name) for name in names},
        **({"head_dim": 16, "attention_bias": False} if model_type == "hulumed_qwen3" else {}),
        "architectures": ["HulumedForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_hulumed.Config", "AutoModelForCausalLM": "modeling_hulumed.Model"},
        "model_type": model_type,
        "rope_theta": text.rope_parameters["rope_theta"],
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
        "mm_projector_type": "mlp2x_gelu",
        "use_token_compression": True,
        "image_token_index": config.image_token_id,
        "vision_encoder": None,
        "vision_encoder_config": {
            "model_type": "hulumed_vision_encoder",
            **{name: getattr(config.vision_config, name) for name in vision},
        },
        "temperature": 1.0,
    }


def write_json(path, content):
    path.write_text(json.dumps(content))


def write_shards(folder, weights, count=3):
    """Write weights to several shards, with their index."""
    weight_map = {}
    for shard in range(count):
        name = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part = {key: weights[key] for key in sorted(weights)[shard::count]}
        save_file(part, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    size = sum(weight.nbytes for weight in weights.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def write_original(folder, model, tiny):
    """A checkpoint in Hulu-Med's layout."""
    text_type = model.config.text_config.model_type
    folder.mkdir()
    weights = {original_key(key): weight.bfloat16() for key, weight in model.state_dict().items()}
    if text_type == "qwen3":
        del weights["lm_head.weight"]
    write_shards(folder, weights)
    write_json(folder / "config.json", flat_config(model.config, f"hulumed_{text_type}"))
    settings = json.loads((tiny / "tokenizer_config.json").read_text())
    settings |= {"processor_class": "HulumedProcessor", "chat_template": "the language model's own"}
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})
    write_json(folder / "generation_config.json", {"eos_token_id": settings.get("eos_token_id"), "top_k": 20})
    auto_map = {"AutoImageProcessor": "image_processing_hulumed.Processor", "AutoProcessor": "processing_hulumed.P"}
    preprocessor = {
        "auto_map": auto_map,
        "image_processor_type": "HulumedImageProcessor",
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "do_convert_rgb": True,
        "min_tokens": 16,
        "max_tokens": 100,
        "patch_size": 14,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    (folder / "modeling_hulumed.py").write_text("raise SystemExit('remote code ran')")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return save_tiny_checkpoint("video_llama_3", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["qwen2", "qwen3"])
def native(request, tiny):
    return tiny_model(tiny, request.param)


@pytest.fixture
def source(native, tiny, tmp_path):
    return write_original(tmp_path / "original", native, tiny)


@pytest.fixture
def destination(source):
    return source.parent / "converted" / "native"


qwen2_only = pytest.mark.parametrize("native", ["qwen2"], indirect=True)


def change_json(path, **changes):
    """Set fields of a JSON file; a field that is None is removed."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {name: value for name, value in content.items() if value is not None})


def test_outputs_are_bitwise_equal(native, source, destination):
    convert_hulumed(source, destination)
    converted = load_model(str(destination), dtype="float32", attn_implementation="sdpa", device="cpu")
    expected = native.state_dict()
    assert list(converted.state_dict()) == list(expected)
    assert all(torch.equal(weight, expected[key]) for key, weight in converted.state_dict().items())
    processor, tokenizer = load_processors(str(destination))
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (112, 140, 3), dtype=np.uint8)) for _ in range(2)]
    inputs = processor(images=images, return_tensors="pt")
    text = tokenizer("Look: " + "<image>" * 40 + " Is it?", return_tensors="pt")
    native.set_attn_implementation("sdpa")
    with torch.no_grad():
        one, other = (model(**text, **inputs).logits for model in (native, converted))
    assert one.std() > 0.1
    assert torch.equal(one, other)


def test_configuration(native, source, destination):
    convert_hulumed(source, destination)
    config = VideoLlama3Config.from_pretrained(destination)
    assert config.dtype == torch.bfloat16
    assert config.image_token_id == config.video_token_id == native.config.image_token_id
    assert config.tie_word_embeddings == native.config.tie_word_embeddings
    for part in ("text_config", "vision_config"):
        expected, got = (getattr(one, part).to_dict() for one in (native.config, config))
        ignored = {"dtype", "architectures", "_name_or_path", "transformers_version"}
        assert {k: v for k, v in got.items() if k not in ignored} == {
            k: v for k, v in expected.items() if k not in ignored
        }


@qwen2_only
def test_no_remote_code_is_left(native, source, destination):
    convert_hulumed(source, destination)
    assert not list(destination.glob("*.py"))
    for file in destination.glob("*.json"):
        if file.name != "tokenizer.json":
            text = file.read_text()
            assert "ulumed" not in text, file.name
            assert "auto_map" not in text, file.name
            assert "token_compression" not in text, file.name
    assert json.loads((destination / "generation_config.json").read_text())["top_k"] == 20


@qwen2_only
def test_shards_stay_shards(native, source, destination):
    convert_hulumed(source, destination)
    index = json.loads((destination / INDEX).read_text())
    names = sorted(file.name for file in source.glob("*.safetensors"))
    assert sorted(file.name for file in destination.glob("*.safetensors")) == names
    stored = {name: load_file(destination / name) for name in names}
    assert {key: name for name in names for key in stored[name]} == index["weight_map"]
    assert {weight.dtype for part in stored.values() for weight in part.values()} == {torch.bfloat16}
    assert index["metadata"]["total_size"] == 2 * sum(weight.numel() for weight in native.state_dict().values())


@qwen2_only
def test_one_shard_is_in_memory_at_a_time(native, source, destination, monkeypatch):
    earlier, sizes = [], []

    def watch(weights, path, **arguments):
        assert not any(one() is not None for one in earlier)
        earlier.extend(weakref.ref(weight) for weight in weights.values())
        sizes.append(sum(weight.nbytes for weight in weights.values()))
        save_file(weights, path, **arguments)

    monkeypatch.setattr(module, "save_file", watch)
    convert_hulumed(source, destination)
    total = 2 * sum(weight.numel() for weight in native.state_dict().values())
    assert len(sizes) == 3
    assert sum(sizes) == total
    assert max(sizes) < 0.75 * total


@qwen2_only
def test_a_single_file(native, source, destination):
    weights = {key: weight for file in source.glob("*.safetensors") for key, weight in load_file(file).items()}
    for file in [*source.glob("*.safetensors"), source / INDEX]:
        file.unlink()
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    convert_hulumed(source, destination)
    assert not (destination / INDEX).exists()
    converted = load_model(str(destination), dtype="float32", device="cpu").state_dict()
    assert all(torch.equal(converted[key], weight) for key, weight in native.state_dict().items())


@qwen2_only
def test_prompts_need_no_processor(native, source, destination):
    """The template writes the placeholders without the processor, and writes volumes as Hulu-Med does."""
    convert_hulumed(source, destination)
    _, tokenizer = load_processors(str(destination))
    for part, written in (
        ({"type": "video", "num_frames": 3}, "<image>,<image>,<image>\n"),
        ({"type": "image"}, "<image>\n"),
    ):
        message = {"role": "user", "content": [part, {"type": "text", "text": "Why?"}]}
        text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        assert text == f"<|im_start|>user\n{written}Why?<|im_end|>\n<|im_start|>assistant\n"


@qwen2_only
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_other_places_of_the_template(native, source, destination, place):
    (source / "chat_template.json").unlink()
    if place.endswith("jinja"):
        (source / place).write_text(TEMPLATE)
    else:
        change_json(source / place, chat_template=TEMPLATE)
    convert_hulumed(source, destination)
    assert load_processors(str(destination))[1].chat_template.endswith(TEMPLATE)
    assert "chat_template" not in json.loads((destination / "tokenizer_config.json").read_text())


@qwen2_only
def test_image_processor(native, source, destination):
    convert_hulumed(source, destination)
    processor, _ = load_processors(str(destination))
    assert isinstance(processor, VideoLlama3ImageProcessorPil)
    assert (processor.patch_size, processor.merge_size) == (14, 2)
    assert list(processor.image_mean) == [0.5, 0.4, 0.3]
    assert list(processor.image_std) == [0.5, 0.6, 0.7]
    inputs = processor(images=[Image.new("RGB", (20, 20)), Image.new("RGB", (900, 900))], return_tensors="pt")
    # 16 and 100 tokens of 28² pixels are the smallest and the largest
    assert (inputs["image_grid_thw"].prod(1) // 4).tolist() == [16, 100]
    assert inputs["image_merge_sizes"].tolist() == [2, 2]
    assert inputs["pixel_values"][0, 0] == pytest.approx(-1)
    assert inputs["pixel_values"][0, -1] == pytest.approx(-0.3 / 0.7)


@qwen2_only
def test_question_about_a_volume(native, source, destination):
    convert_hulumed(source, destination)
    network = VolumeQA.from_pretrained(str(destination), NucleusPruner(tau=0.5), max_new_tokens=3)
    (study,) = network(torch.rand(1, 1, 112, 112, 3), [["Is there an effusion?"]])
    assert isinstance(study.answers[0].text, str)
    assert len(study.record.slices) == 3


def rewrite(source, change):
    """Change the weights of the first shard, and the index with them."""
    file = sorted(source.glob("*.safetensors"))[0]
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    index = json.loads((source / INDEX).read_text())
    others = {key: name for key, name in index["weight_map"].items() if name != file.name}
    change_json(source / INDEX, weight_map=others | dict.fromkeys(weights, file.name))


def add_unknown(source):
    rewrite(source, lambda weights: weights.update({"model.layers.0.adapter.weight": torch.zeros(2)}))


def add_old_branch_key(source):
    key = "model.vision_encoder.vision_encoder.post_layernorm.weight"
    rewrite(source, lambda weights: weights.update({key: torch.zeros(2)}))


def drop_weight(source):
    rewrite(source, lambda weights: weights.pop(sorted(weights)[1]))


def misshape(source):
    rewrite(source, lambda weights: weights.update({sorted(weights)[0]: torch.zeros(3, 2)}))


def truncate(source):
    file = sorted(source.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-10])


def truncate_header(source):
    file = sorted(source.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:20])


def lose_shard(source):
    sorted(source.glob("*.safetensors"))[2].unlink()


def lose_all(source):
    for file in [*source.glob("*.safetensors"), source / INDEX]:
        file.unlink()


def misindex(source):
    weight_map = json.loads((source / INDEX).read_text())["weight_map"]
    names = sorted(set(weight_map.values()))
    key = next(key for key, name in weight_map.items() if name == names[0])
    change_json(source / INDEX, weight_map=weight_map | {key: names[1]})


def index_outside(source):
    change_json(source / INDEX, weight_map={"lm_head.weight": "../elsewhere.safetensors"})


@qwen2_only
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (add_unknown, r"1 unknown: model\.layers\.0\.adapter\.weight$"),
        (add_old_branch_key, r"1 unknown: model\.vision_encoder\.vision_encoder\."),
        (drop_weight, r"1 missing: model\."),
        (misshape, r"1 of another shape: .* \[3, 2\] instead of"),
        (truncate, r"model-00002-of-00003\.safetensors is truncated or damaged"),
        (truncate_header, r"model-00002-of-00003\.safetensors is truncated or damaged"),
        (lose_shard, r"lacks model-00003-of-00003\.safetensors"),
        (lose_all, r"lacks model\.safetensors; only safetensors"),
        (misindex, r"model-0000[12]-of-00003\.safetensors and model\.safetensors\.index\.json differ in"),
        (index_outside, "outside the checkpoint"),
        (lambda source: (source / INDEX).write_text("{}"), "lacks weight_map"),
        (lambda source: (source / INDEX).write_text("[1"), "is not JSON"),
        (lambda source: (source / INDEX).write_text("[1]"), "JSON object"),
        (lambda source: (source / "config.json").unlink(), r"lacks config\.json"),
        (lambda source: (source / "preprocessor_config.json").unlink(), r"lacks preprocessor_config\.json"),
        (lambda source: (source / "tokenizer_config.json").unlink(), r"lacks tokenizer_config\.json"),
        (lambda source: (source / "tokenizer.json").unlink(), "tokenizer"),
        (lambda source: write_json(source / "chat_template.json", {}), "no chat template"),
        (lambda source: write_json(source / "chat_template.json", {"chat_template": "{% if"}), "cannot be read"),
        (lambda source: write_json(source / "chat_template.json", {"chat_template": "hm"}), "writes 0 placeholders"),
    ],
)
def test_damaged_checkpoints(native, source, destination, damage, message):
    damage(source)
    with pytest.raises(CheckpointError, match=message):
        convert_hulumed(source, destination)
    assert not destination.parent.exists() or not list(destination.parent.iterdir())


@qwen2_only
@pytest.mark.parametrize(
    "field",
    [*module._TEXT_FIELDS, "model_type", "vision_encoder_config", "mm_projector_type", "image_token_index"],
)
def test_missing_fields(native, source, destination, field):
    change_json(source / "config.json", **{field: None})
    with pytest.raises(CheckpointError, match=rf"config\.json lacks {field}$"):
        convert_hulumed(source, destination)


@qwen2_only
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava_qwen2"}, "model_type 'llava_qwen2', expected one of hulumed_qwen2, hulumed_qwen3"),
        ({"mm_projector_type": "linear"}, "can be converted, got 'linear'"),
        ({"vision_encoder_config": "elsewhere"}, "must be an object that describes the vision encoder, got str"),
        ({"vision_encoder_config": {}}, "vision_encoder_config lacks hidden_size, intermediate_size"),
        ({"image_token_index": -1}, r"image_token_index .* must be .* 0 to \d+, got -1"),
        ({"image_token_index": 65}, "image_token_index is 65, .* no added token"),
        ({"hidden_size": "large"}, "does not describe a model"),
        ({"num_hidden_layers": 2}, r"12 unknown: model\.layers\.2"),
    ],
    ids=str,
)
def test_other_configurations(native, source, destination, changes, message):
    change_json(source / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        convert_hulumed(source, destination)


@qwen2_only
def test_patches_of_another_size(native, source, destination):
    change_json(source / "preprocessor_config.json", patch_size=16)
    with pytest.raises(CheckpointError, match="patch_size 16, expected that of the vision encoder, 14"):
        convert_hulumed(source, destination)


@qwen2_only
def test_folders(native, source, destination):
    with pytest.raises(CheckpointError, match="no folder"):
        convert_hulumed(source / "none", destination)
    destination.mkdir(parents=True)
    (destination / "mine.txt").write_text("precious")
    with pytest.raises(OutputFolderError, match="not an empty folder"):
        convert_hulumed(source, destination)
    assert (destination / "mine.txt").read_text() == "precious"
    (destination / "mine.txt").unlink()
    convert_hulumed(source, destination)
    assert (destination / "config.json").exists()


@qwen2_only
@pytest.mark.parametrize("exists", [False, True])
def test_interruption_leaves_nothing(native, source, destination, monkeypatch, exists):
    if exists:
        destination.mkdir(parents=True)
    calls = []

    def interrupted(weights, path, **arguments):
        calls.append(path)
        assert not destination.exists() or not any(destination.iterdir())
        if len(calls) == 2:
            raise KeyboardInterrupt
        save_file(weights, path, **arguments)

    monkeypatch.setattr(module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_hulumed(source, destination)
    assert list(destination.parent.rglob("*")) == ([destination] if exists else [])
