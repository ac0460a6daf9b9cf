# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Prompts on the real tokenizers of Qwen3 and Gemma 3: ids as stock processors make them, text as a person reads it.

The tokenizers lie in ``../shared/tokenizers``. The files in ``golden`` are the rendered texts; a run of placeholders is
written as ``{token x number}``. A change of a prompt has to be made there as well.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from real_prompts import images, recipe, save_real_checkpoint, stock_ids

from monai_medpruner.bundles import bundle_for_checkpoint, open_bundle
from monai_medpruner.cli.main import main
from monai_medpruner.engines import Conversation, VolumePrompt, VolumeQA
from monai_medpruner.engines.conversation import conversation_text
from monai_medpruner.errors import QuestionError
from monai_medpruner.networks import Checkpoint
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.settings import bundle_folders, setting_overrides

BUNDLES = {"qwen3_vl": "medpruner_qwen3vl", "gemma3": "medpruner_medgemma", "video_llama_3": "medpruner_hulumed"}
REAL = ("qwen3_vl", "gemma3")
PRESETS = ("paper", "released", "makers")
GOLDEN = Path(__file__).parent / "golden"
QUESTION = "Is there a pleural effusion?"
#: texts that the chat templates and the processors give a meaning to
STRUCTURE = {
    "qwen3_vl": "im_start im_end endoftext vision_start vision_end vision_pad image_pad video_pad".split(),
    "gemma3": "bos eos pad unk start_of_turn end_of_turn start_of_image end_of_image image_soft_token".split(),
}


def structural_tokens(model_type):
    return [f"<|{name}|>" if model_type == "qwen3_vl" else f"<{name}>" for name in STRUCTURE[model_type]]


def preset_prompt(model_type, preset) -> VolumePrompt:
    """The prompt of a preset, from the bundle's configuration."""
    folder = bundle_folders()[BUNDLES[model_type]]
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.update(setting_overrides(folder, {"preset": preset}))
    return parser.get_parsed_content("prompt")


@pytest.fixture(scope="module", params=REAL)
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def folder(model_type, shared_tokenizer, tmp_path_factory):
    return save_real_checkpoint(model_type, shared_tokenizer(model_type), tmp_path_factory.mktemp(model_type))


@pytest.fixture(scope="module")
def loaded(folder):
    return Checkpoint(str(folder), device="cpu")


@pytest.fixture
def ids(model_type, loaded):
    """Return a function: prompt, images, slice indices, turns -> our ids and those of the stock processor."""

    def both(prompt, preset, slices, indices, *turns):
        inputs = dict(loaded.image_processor(images=slices, return_tensors="pt"))
        grids = loaded.family.token_grids(inputs)
        text = conversation_text(Conversation(prompt, turns), loaded.tokenizer, loaded.family, grids, indices)
        ours = loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        content = recipe(model_type, preset, slices, [index + 1 for index in indices], turns[0])
        messages = [{"role": "user", "content": content}]
        for number, turn in enumerate(turns[1:]):
            role = "user" if number % 2 else "assistant"
            messages.append({"role": role, "content": [{"type": "text", "text": turn}]})
        return ours, stock_ids(model_type, loaded.image_processor, loaded.tokenizer, messages)

    return both


def pieces(ids, image_token):
    """Ids between the slices, and each slice's run of placeholders, one after another."""
    found: list[list[int]] = [[]]
    for before, one in zip([None, *ids.tolist()], ids.tolist(), strict=False):
        if (one == image_token) != (before == image_token):
            found.append([])
        found[-1].append(one)
    return found


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("count", [3, 85, 300])
def test_ids_are_those_of_the_stock_processor(model_type, loaded, ids, preset, count):
    """Slice by slice; kept slices lie apart in the volume."""
    indices = [2 * place + 5 for place in range(count)]
    ours, stock = ids(preset_prompt(model_type, preset), preset, images(count), indices, QUESTION)
    image_token = loaded.family.image_token_id
    assert len(pieces(ours, image_token)) == 2 * count + 1
    for place, (one, other) in enumerate(zip(pieces(ours, image_token), pieces(stock, image_token), strict=True)):
        assert one == other, (place, loaded.tokenizer.decode(one), loaded.tokenizer.decode(other))
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("preset", PRESETS)
def test_follow_up_turns(model_type, ids, preset):
    turns = (QUESTION, " A small one, on the right.\n", "How large is it?", "About 2 cm.", "Was it there before?")
    ours, stock = ids(preset_prompt(model_type, preset), preset, images(4), [0, 3, 4, 9], *turns)
    assert torch.equal(ours, stock)


QUESTIONS = [
    "  blanks around it  ",
    "first line\nsecond line\n\nthird",
    "Ist das ein Pleuraerguß? 胸腔积液？ 🫁",
    "{number} {place} {question} {{}} %s",
    "a < b > c | d <|not a token|> <start of turn>",
    "Which one?\nA. Liver\nB. Spleen",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_any_text_of_a_question(model_type, ids, question):
    ours, stock = ids(preset_prompt(model_type, "makers"), "makers", images(2), [0, 1], question)
    assert torch.equal(ours, stock)


def test_structural_tokens_are_special_in_the_real_vocabulary(model_type, loaded):
    """What the next test refuses is what the real vocabulary has."""
    tokenizer = loaded.tokenizer
    for token in structural_tokens(model_type):
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]


def test_special_tokens_are_refused(model_type, loaded):
    """Each one that the tokenizer marks, in a question, an earlier turn and the system prompt."""
    tokenizer, prompt = loaded.tokenizer, preset_prompt(model_type, "paper")
    marked = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    assert set(structural_tokens(model_type)) <= marked | set(tokenizer.all_special_tokens)
    for token in [*structural_tokens(model_type), *sorted(marked)[:40]]:
        refused = [
            Conversation(prompt, (f"Is this {token} a token?",)),
            Conversation(prompt, ("Is this?", f"It is{token}", "Really?")),
            Conversation(VolumePrompt(system=f"You are {token}."), ("Is this?",)),
        ]
        for one in refused:
            with pytest.raises(QuestionError, match="special tokens"):
                conversation_text(one, tokenizer, loaded.family, [(2, 2)], [0])


def test_parts_of_special_tokens_stay_text(model_type, loaded):
    """Texts made of their fragments are refused, or change nothing but the words of the prompt."""
    tokenizer, generator = loaded.tokenizer, random.Random(7)
    structure = {tokenizer.convert_tokens_to_ids(token) for token in structural_tokens(model_type)}
    fragments = [part for token in structural_tokens(model_type) for part in re.split(r"(?<=[|_<])|(?=[|>])", token)]
    prompt = preset_prompt(model_type, "paper")

    def counted(question):
        text = conversation_text(Conversation.about(prompt, question), tokenizer, loaded.family, [(2, 2)] * 2, [0, 1])
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [one for one in ids if one in structure]

    usual, refused = counted("Is this?"), 0
    for _ in range(80):
        question = "Is " + "".join(generator.choices([*fragments, " "], k=generator.randint(1, 12)))
        try:
            assert counted(question) == usual, question
        except QuestionError:
            refused += 1
    assert refused < 55


@pytest.mark.parametrize("preset", PRESETS)
def test_a_person_can_read_the_prompt(model_type, loaded, preset):
    assert rendered(loaded, preset_prompt(model_type, preset)) == golden(model_type, preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_person_can_read_hulu_meds_prompt(preset, tmp_path):
    """In the chat template of the tiny model; that of the checkpoint was not seen."""
    from monai_medpruner.testing import save_tiny_checkpoint

    tiny = Checkpoint(str(save_tiny_checkpoint("video_llama_3", tmp_path)), device="cpu")
    assert rendered(tiny, preset_prompt("video_llama_3", preset)) == golden("video_llama_3", preset)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_budgets_change_no_prompt(bundle):
    assert preset_prompt(bundle, "balanced") == preset_prompt(bundle, "fast") == preset_prompt(bundle, "paper")


def rendered(loaded, prompt):
    """The text of a short study, with runs of placeholders counted."""
    grids, indices = [(2, 3)] * 3, [4, 5, 8]
    conversation = Conversation(prompt, (QUESTION, "Yes, on the right.", "How large is it?"))
    text = conversation_text(conversation, loaded.tokenizer, loaded.family, grids, indices)
    token = loaded.tokenizer.convert_ids_to_tokens(loaded.family.image_token_id)
    return re.sub(f"(?:{re.escape(token)})+", lambda run: f"{{{token} x {run[0].count(token)}}}", text)


def golden(model_type, preset):
    return (GOLDEN / f"{model_type}_{preset}.txt").read_text(encoding="utf-8")


def test_through_from_pretrained_and_answer(model_type, folder, loaded):
    """A checkpoint with the real tokenizer: encoded, pruned and answered, with a follow-up question."""
    prompt = preset_prompt(model_type, "paper")
    network = VolumeQA.from_pretrained(
        str(folder), NucleusPruner(tau=0.5, temperature=0.5), prompt=prompt, max_new_tokens=3, device="cpu"
    )
    volume = torch.rand(1, 64, 96, 4, generator=torch.Generator().manual_seed(1))
    study = network.encode(volume)
    answer = network.answer(study, QUESTION)
    text = network.engine.prompt_text(study, Conversation.about(prompt, QUESTION))
    unpruned = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    dropped = sum(int((~one.keep).sum()) for one in study.record.slices)
    assert dropped > 0
    assert answer.prompt_tokens == len(unpruned) - dropped
    assert 1 <= answer.new_tokens <= 3
    again = network.answer(study, [QUESTION, "Yes.", "How large is it?"])
    assert again.prompt_tokens > answer.prompt_tokens
    assert again.visual_tokens == answer.visual_tokens


def test_through_the_bundle(model_type, folder, shared_data, tmp_path, capsys):
    """Our command chooses the bundle by the checkpoint; so does the bundle's own workflow."""
    assert bundle_for_checkpoint(str(folder)).name == BUNDLES[model_type]
    image = str(shared_data("ct_torso_nifti/ct_small.nii.gz"))
    words = ["--model", str(folder), "--device", "cpu", "--slices", "3:6", "--max_new_tokens", "3"]
    main(["ask", "--image", image, "--question", QUESTION, *words, "--output_dir", str(tmp_path)])
    (line,) = [json.loads(text) for text in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert line["question"] == QUESTION
    assert 1 <= line["new_tokens"] <= 3
    bundle = bundle_folders()[BUNDLES[model_type]]
    texts = {"model": str(folder), "device": "cpu", "slices": "3:6", "max_new_tokens": "3"}
    workflow = open_bundle(bundle, setting_overrides(bundle, texts), items=[{"image": image, "question": [QUESTION]}])
    data = workflow.parser.get_parsed_content("preprocessing")({"image": image})
    network = workflow.network_def
    assert network.answer(network.encode(data["image"]), QUESTION).text == line["answer"]
