# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A real vLLM server reads the rows of a study from a shared folder; without them a question fails alone and soon."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from phantom_studies import QUESTIONS, encoded_studies, make_phantoms
from safetensors.torch import save_file
from vllm_server import serve

from monai_medpruner.engines import Conversation
from monai_medpruner.engines.vllm import ServerVLLMEngine, pruned_request
from monai_medpruner.engines.vllm.row_folder import row_file
from monai_medpruner.errors import EngineError

pytest.importorskip("vllm", reason="vLLM has an environment of its own")


NEW_TOKENS = 16
SOON_S = 15


class Forgetful(ServerVLLMEngine):
    """Loses or changes rows after it wrote them, as another process could."""

    lose = None

    def _image_parts(self, request):
        parts = super()._image_parts(request)
        if self.lose is not None:
            self.lose(self.row_folder, [one["uuid"] for one in parts])
        return parts


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    return encoded_studies("qwen3_vl", make_phantoms(tmp_path_factory.mktemp("phantoms") / "phantoms", 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def address(encoded, folder, tmp_path_factory):
    connector = {
        "ec_connector": "SharedRowsConnector",
        "ec_connector_module_path": "monai_medpruner.engines.vllm.shared_rows",
        "ec_role": "ec_consumer",
        "ec_connector_extra_config": {"folder": str(folder)},
    }
    options = ["--ec-transfer-config", json.dumps(connector), "--skip-mm-profiling"]
    options += ["--limit-mm-per-prompt", '{"image": 0, "video": 0}', "--max-num-batched-tokens", "64"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serve(encoded[0].engine.checkpoint.path_or_id, log, *options) as found:
        yield found


@pytest.fixture
def engine(encoded, address, folder):
    return Forgetful(encoded[0].engine.checkpoint, address, max_new_tokens=NEW_TOKENS, row_folder=folder)


def asked(network):
    return [Conversation.about(network.prompt, question) for question in QUESTIONS]


def answers(found):
    return [one.text for one in found]


def test_as_with_transformers(encoded, engine, folder):
    """12 questions; a step of the engine takes fewer tokens than a study has, and files are written once."""
    network, studies = encoded
    for study in studies[:3]:
        found = answers(engine.generate(study, asked(network)))
        assert found == answers(network.engine.generate(study, asked(network)))
    written = {file: file.stat().st_mtime_ns for file in folder.glob("*/*.safetensors")}
    assert len(written) == sum(
        len(set(pruned_request(one, asked(network)[0], engine.checkpoint).slice_names())) for one in studies[:3]
    )
    engine.generate(studies[0], asked(network))
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*/*.safetensors")} == written


def test_rows_in_the_request(encoded, address):
    """A client without the folder is served as well."""
    network, studies = encoded
    engine = ServerVLLMEngine(network.engine.checkpoint, address, max_new_tokens=NEW_TOKENS)
    found = answers(engine.generate(studies[1], asked(network)))
    assert found == answers(network.engine.generate(studies[1], asked(network)))


def _remove_all(folder, names):
    shutil.rmtree(folder)
    folder.mkdir()


def _remove_last(folder, names):
    row_file(folder, names[-1]).unlink()


def _truncate(folder, names):
    file = row_file(folder, names[0])
    file.write_bytes(file.read_bytes()[:-7])


def _other_slice(folder, names):
    shutil.copyfile(row_file(folder, names[0]), row_file(folder, names[1]))


def _narrow(folder, names):
    save_file({"rows": torch.zeros(3, 7)}, row_file(folder, names[0]))


@pytest.mark.parametrize("lose", [_remove_all, _remove_last, _truncate, _other_slice, _narrow])
def test_rows_are_gone(encoded, engine, folder, lose):
    """A study that the server has not seen: no answer in its name, an error soon, and the next question is answered."""
    network, studies = encoded
    other = studies[3]
    engine.lose = lambda *arguments: lose(*arguments)
    started = time.monotonic()
    with pytest.raises(EngineError, match="status 5"):
        engine.generate(other, asked(network)[:1])
    assert time.monotonic() - started < SOON_S
    engine.lose = None
    found = answers(engine.generate(studies[0], asked(network)))
    assert found == answers(network.engine.generate(studies[0], asked(network)))
    for name in pruned_request(other, asked(network)[0], engine.checkpoint).slice_names():
        row_file(folder, name).unlink(missing_ok=True)
