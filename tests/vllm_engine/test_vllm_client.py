# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the client sends to a vLLM server, and what it makes of replies; a small server stands for vLLM."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.engines import VolumePrompt, VolumeQA
from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.engines.vllm import ServerVLLMEngine, pruned_request, vllm_engine
from monai_medpruner.engines.vllm.row_folder import read_rows
from monai_medpruner.errors import EngineError, EngineUnreachableError, PromptError, SettingsError, ends_run
from monai_medpruner.label.configuration import configuration
from monai_medpruner.label.study_model import StudyModel
from monai_medpruner.networks import Checkpoint, TransformersEncoder
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint(str(save_tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("model"))))


@pytest.fixture
def server():
    """A server that keeps what it was sent, and replies what ``reply`` makes of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send({"data": [{"id": "served"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            own.bodies.append((self.path, body))
            self.send(*own.reply(body))

        def send(self, content, status=200):
            data = json.dumps(content).encode()
            with suppress(BrokenPipeError):  # a client that waits no longer
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_):
            """Say nothing."""

    own = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.bodies, own.address = [], f"http://127.0.0.1:{own.server_port}"
    thread = threading.Thread(target=own.serve_forever)
    thread.start()
    yield own
    own.shutdown()
    thread.join()
    own.server_close()


def network(checkpoint, server, prompt=None, **options):
    encoder = TransformersEncoder(checkpoint, NucleusPruner(tau=0.5, temperature=0.5))
    engine = ServerVLLMEngine(checkpoint, server.address, max_new_tokens=8, **options)
    return VolumeQA(encoder, engine, prompt or VolumePrompt("Read."))


def volume(seed=0):
    return MetaTensor(torch.rand(1, 64, 96, 4, generator=torch.Generator().manual_seed(seed)))


def answering(checkpoint, ids, text):
    """A reply as vLLM's, for a prompt of these ids."""
    tokens = checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
    usage = {"prompt_tokens_details": {"cached_tokens": 5}}
    return lambda _: ({"prompt_token_ids": ids, "choices": [{"token_ids": tokens}], "usage": usage},)


def test_what_is_sent(checkpoint, server):
    """Texts and slices in the order of the prompt; rows, counts and positions of every slice."""
    qa = network(checkpoint, server)
    study = qa.encode(volume())
    conversation = Conversation.about(qa.prompt, ["Where?", "Left.", "Sure?"])
    request = pruned_request(study, conversation, checkpoint)
    server.reply = answering(checkpoint, request.full_ids, "Yes")
    answer = qa.answer(study, ["Where?", "Left.", "Sure?"])
    assert (answer.text, answer.reused_tokens, answer.prompt_tokens) == ("Yes", 5, request.length)
    ((path, body),) = server.bodies
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("served", 0, 8)
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user"]
    content = body["messages"][0]["content"]
    assert [one["type"] for one in content] == ["text", *["text", "image_embeds"] * 4, "text"]
    assert content[1]["text"] == "Slice 1:"
    assert body["messages"][2]["content"] == [{"type": "text", "text": "Sure?"}]
    parts = [one for one in content if one["type"] == "image_embeds"]
    assert [one["uuid"] for one in parts] == request.slice_names()
    for part, rows, positions in zip(parts, request.rows, request.positions, strict=True):
        fields = part["image_embeds"]
        sent = torch.load(io.BytesIO(base64.b64decode(fields["image_embeds"])), weights_only=True)
        assert torch.equal(sent, rows)
        assert fields["kept_count"] == [len(rows)]
        assert fields["kept_positions"] == positions.flatten().tolist()


def test_rows_by_a_folder(checkpoint, server, tmp_path):
    """Requests hold counts, positions and names, and the folder holds the rows of these names."""
    qa = network(checkpoint, server, row_folder=tmp_path)
    study = qa.encode(volume())
    request = pruned_request(study, Conversation.about(qa.prompt, "Where?"), checkpoint)
    server.reply = answering(checkpoint, request.full_ids, "Yes")
    assert qa.answer(study, "Where?").text == "Yes"
    ((_, body),) = server.bodies
    parts = [one for one in body["messages"][0]["content"] if one["type"] == "image_embeds"]
    each = zip(parts, request.rows, request.positions, request.extents, strict=True)
    for part, rows, positions, extent in each:
        assert "image_embeds" not in part["image_embeds"]
        assert torch.equal(read_rows(tmp_path, part["uuid"], positions, extent), rows)


def test_no_folder_for_whole_prompts(server, tmp_path):
    other = Checkpoint(str(save_tiny_checkpoint("video_llama_3", tmp_path / "model")))
    qa = network(other, server, row_folder=tmp_path)
    study = qa.encode(volume())
    with pytest.raises(SettingsError, match="row_folder is not for"):
        qa.answer(study, "Is it?")


def test_many_questions_keep_their_order(checkpoint, server):
    qa = network(checkpoint, server)
    study = qa.encode(volume())
    questions = [f"Question {number}?" for number in range(20)]
    ids = {
        question: pruned_request(study, Conversation.about(qa.prompt, question), checkpoint).full_ids
        for question in questions
    }

    def reply(body):
        question = body["messages"][0]["content"][-1]["text"]
        return answering(checkpoint, ids[question], question)(body)

    server.reply = reply
    answers = qa.engine.generate(study, [Conversation.about(qa.prompt, one) for one in questions])
    assert [one.text for one in answers] == questions


def test_another_prompt_is_refused(checkpoint, server):
    """A server with another template or checkpoint never answers in the name of ours."""
    qa = network(checkpoint, server)
    server.reply = answering(checkpoint, [1, 2, 3], "Yes")
    with pytest.raises(EngineError, match="another prompt"):
        qa.answer(qa.encode(volume()), "Is it?")


def test_refused_request_says_what_the_server_said(checkpoint, server):
    qa = network(checkpoint, server)
    server.reply = lambda _: ({"error": {"message": "kept_positions must lie from 0"}}, 400)
    with pytest.raises(EngineError, match=r"status 400.*kept_positions"):
        qa.answer(qa.encode(volume()), "Is it?")


def test_no_server(checkpoint, server):
    server.address = "http://127.0.0.1:1"
    qa = network(checkpoint, server)
    study = qa.encode(volume())
    with pytest.raises(EngineError, match=r"no answer from the vLLM server at http://127\.0\.0\.1:1"):
        qa.answer(study, "Is it?")


def test_a_slow_answer_is_an_error_of_its_question(checkpoint, server):
    qa = network(checkpoint, server, timeout_s=0.5)
    study, ended = qa.encode(volume()), threading.Event()
    server.reply = lambda _: ({"ended": ended.wait(20)},)
    with pytest.raises(EngineError, match=r"did not answer within 0\.5 seconds") as raised:
        qa.answer(study, "Is it?")
    ended.set()
    assert not ends_run(raised.value)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 50\r\n\r\n{"], ids=["nothing", "a part"])
def test_a_server_that_ends_while_it_answers_ends_the_run(checkpoint, sent):
    """As one does that is killed: the connection closes, before or within the reply."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            for _ in range(2):
                connection, _ = listening.accept()
                with connection, connection.makefile("rb") as stream:
                    headers = list(iter(stream.readline, b"\r\n"))
                    if headers[0].startswith(b"GET"):
                        connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"data": [{"id": "served"}]}')
                        continue
                    length = next(
                        int(one.split(b":")[1]) for one in headers if one.lower().startswith(b"content-length")
                    )
                    stream.read(length)
                    connection.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        encoder = TransformersEncoder(checkpoint, NucleusPruner(tau=0.5, temperature=0.5))
        engine = ServerVLLMEngine(checkpoint, f"http://127.0.0.1:{listening.getsockname()[1]}")
        qa = VolumeQA(encoder, engine, VolumePrompt("Read."))
        study = qa.encode(volume())
        with pytest.raises(EngineUnreachableError) as raised:
            qa.answer(study, "Is it?")
        thread.join(20)
    assert ends_run(raised.value)


def test_settings(checkpoint, monkeypatch):
    with pytest.raises(SettingsError, match="http address"):
        ServerVLLMEngine(checkpoint, "localhost:8000")
    with pytest.raises(SettingsError, match="max_new_tokens"):
        ServerVLLMEngine(checkpoint, "http://127.0.0.1:8000", max_new_tokens=0)
    engine = ServerVLLMEngine(checkpoint, "http://127.0.0.1:8000/")
    monkeypatch.setattr(ServerVLLMEngine, "context_length", 40)
    study = TransformersEncoder(checkpoint).encode(volume())
    with pytest.raises(PromptError, match="context"):
        engine.generate(study, [Conversation.about(VolumePrompt(), "Is it?")])


def test_unknown_family(tmp_path, server):
    other = Checkpoint(str(save_tiny_checkpoint("internvl", tmp_path)))
    qa = network(other, server)
    with pytest.raises(SettingsError, match="the vLLM engine does not know internvl"):
        qa.answer(qa.encode(volume()), "Is it?")


def test_label_asks_a_running_server(checkpoint, server, shared_data, monkeypatch):
    """The app encodes a study once; its questions go to the server, and an error of the server leaves the app alive."""
    requests = []

    def recorded(*given):
        requests.append(pruned_request(*given))
        return requests[-1]

    monkeypatch.setattr(vllm_engine, "pruned_request", recorded)
    settings = {"model": checkpoint.path_or_id, "engine": "vllm", "endpoint": server.address, "slices": "3:6"}
    model = StudyModel.from_configuration(configuration(settings))
    image = shared_data("ct_torso_nifti/ct_small.nii.gz")
    server.reply = lambda body: answering(checkpoint, requests[-1].full_ids, "Yes")(body)
    first = model.ask(image, "Is it?")
    later = model.ask(image, "Where?", [("Is it?", "Yes")])
    assert (first["answer"], later["answer"]) == ("Yes", "Yes")
    assert first["settings"]["engine"]["where"] == "server"
    assert first["seconds"]["encode"] > 0
    assert later["seconds"]["encode"] == 0
    assert [one["role"] for one in server.bodies[1][1]["messages"]] == ["user", "assistant", "user"]
    server.reply = lambda _: ({"error": {"message": "busy"}}, 503)
    with pytest.raises(EngineError, match="503"):
        model.ask(image, "Is it?")
    server.reply = lambda body: answering(checkpoint, requests[-1].full_ids, "Yes")(body)
    assert model.ask(image, "Is it?")["answer"] == "Yes"
