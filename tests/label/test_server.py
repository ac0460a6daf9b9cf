# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The app in a real MONAI Label server, with requests from MONAI Label's client and as from curl."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import nibabel as nib
import numpy as np
import pytest
from label_server import TINY_CONF, start_server, write_study

from monai_medpruner.label.configuration import configuration
from monai_medpruner.label.parameters import OverlayParameters
from monai_medpruner.label.study_model import StudyModel

monailabel_client = pytest.importorskip(
    "monailabel.client", reason="MONAI Label has an environment of its own, see docs/label.md"
)
psutil = pytest.importorskip("psutil")

ENCODING = ("load", "filter", "encode", "select")
SECRET = "Has Jane Doe, born 1970-01-01, a lesion?"


@pytest.fixture
def client(server, tmp_path):
    return monailabel_client.MONAILabelClient(server.url, tmpdir=str(tmp_path))


@pytest.fixture(scope="module")
def model():
    """The same model without a server."""
    return StudyModel.from_configuration(configuration(TINY_CONF))


def ask(client, image, question, **params):
    """The client returns JSON as bytes."""
    file, answer = client.infer("ask", image, {"question": question, **params})
    assert file is None
    return json.loads(answer)


def test_tasks_are_listed(client):
    info = client.info()
    assert {name: task["type"] for name, task in info["models"].items()} == {
        "ask": "others",
        "report": "others",
        "pruning_overlay": "segmentation",
    }
    assert info["models"]["pruning_overlay"]["labels"] == {"kept slice": 1, "kept token": 2, "contextual token": 3}
    config = info["models"]["pruning_overlay"]["config"]
    assert config == {"gamma": 0.025, "tau": 0.5, "temperature": 0.05}
    assert info["labels"] == ["kept slice", "kept token", "contextual token"]


def test_questions_share_the_encoded_study(client, server, model):
    image = server.studies / "study.nii.gz"
    questions = ["Is there a lesion?", "Which organ? $print(1) @gamma #3", "On which side?"]
    answers = [ask(client, "study", text) for text in questions]
    expected = [model.ask(image, text) for text in questions]
    for answer, other in zip(answers, expected, strict=True):
        assert {**answer, "seconds": {}} == {**other, "seconds": {}}
    assert len({answer["answer"] for answer in answers}) > 1
    assert all(answer["seconds"][stage] == 0 for answer in answers[1:] for stage in ENCODING)
    history = [{"question": questions[0], "answer": answers[0]["answer"]}]
    later = ask(client, "study", "How large is it?", history=history)
    assert later["answer"] == model.ask(image, "How large is it?", [tuple(history[0].values())])["answer"]
    assert later["answer"] != ask(client, "study", "How large is it?")["answer"]
    assert all(later["seconds"][stage] == 0 for stage in ENCODING)
    assert later["seconds"]["prefill"] > 0


def test_report(client, server):
    _, answer = client.infer("report", "study", {})
    report = json.loads(answer)
    assert "Findings" in report["prompt"]
    assert report["answer"] == ask(client, "study", report["prompt"])["answer"]


@pytest.mark.parametrize("image", ["study", "ct_torso_dicom", "ct_head_tilted_dicom"])
def test_overlay(client, server, model, tmp_path, shared_data, image):
    if image != "study":
        shared_data(image)
    file, params = client.infer("pruning_overlay", image, {})
    source = server.studies / ("study.nii.gz" if image == "study" else image)
    expected_file, expected = model.write_overlay(source, OverlayParameters(), tmp_path / ".")
    # test_study_model.py checks those labels against the record
    overlay, other = nib.load(file), nib.load(expected_file)
    assert np.array_equal(np.asarray(overlay.dataobj), np.asarray(other.dataobj))
    assert np.array_equal(overlay.affine, other.affine)
    if image == "study":
        assert overlay.shape == nib.load(source).shape
        assert np.array_equal(overlay.affine, nib.load(source).affine)
    assert params["record"] == expected["record"] == ask(client, image, "Is it?")["record"]
    assert params["label_names"] == expected["label_names"]


def test_overlay_requests_of_the_viewers(client, server):
    """3D Slicer's plugin requests NRRD with JSON, OHIF's plugin only an uncompressed NRRD."""
    itk = pytest.importorskip("itk")
    slicer = {"result_extension": ".nrrd", "result_dtype": "uint8"}
    file, params = client.infer("pruning_overlay", "study", slicer)
    labels = itk.array_from_image(itk.imread(file))
    assert file.endswith(".nrrd")
    assert set(np.unique(labels)) - {0} == set(params["label_names"].values())
    form = {**slicer, "result_compress": False, "restore_label_idx": False}
    status, content = server.infer("pruning_overlay", "image=study&output=image", form)
    assert status == 200
    assert content.startswith("NRRD")
    assert "encoding: raw" in content


def test_settings_of_a_request(client, model, server):
    """In the format in which 3D Slicer sends its table of options."""
    config = client.info()["models"]["pruning_overlay"]["config"]
    _, usual = client.infer("pruning_overlay", "study", dict(config))
    _, other = client.infer("pruning_overlay", "study", {**config, "tau": 0.2})
    assert other["tokens"]["kept"] < usual["tokens"]["kept"]
    assert [one["settings"]["pruner"]["tau"] for one in (usual, other)] == [0.5, 0.2]
    assert ask(client, "study", "Is it?", tau=0.2)["record"] == other["record"]
    assert ask(client, "study", "Is it?")["record"] == usual["record"]


def test_uploaded_file_and_session(client, server, tmp_path):
    image = write_study(tmp_path / "Doe_Jane.nii.gz", seed=5)
    _, answer = client.infer("ask", "", {"question": "Is it?"}, file=str(image))
    _, again = client.infer("ask", "", {"question": "Where?"}, file=str(image))
    assert json.loads(answer)["seconds"]["encode"] > 0
    assert json.loads(again)["seconds"]["encode"] == 0
    session = client.create_session(str(image))["session_id"]
    _, third = client.infer("ask", "", {"question": "Is it?"}, session_id=session)
    assert json.loads(third)["answer"] == json.loads(answer)["answer"]
    client.remove_session(session)
    with pytest.raises(monailabel_client.client.MONAILabelClientException):
        client.infer("ask", "", {"question": "Is it?"}, session_id=session)


def test_dicom_series_in_a_session(client, server, shared_data):
    """All files of the series in one request, which MONAI Label's client cannot send."""
    requests = pytest.importorskip("requests")
    files = [("files", (file.name, file.read_bytes())) for file in shared_data("ct_torso_dicom").iterdir()]
    session = requests.put(server.url + "/session/", files=files, timeout=60).json()["session_id"]
    _, answer = client.infer("ask", "", {"question": "Is it?"}, session_id=session)
    expected = ask(client, "ct_torso_dicom", "Is it?")
    assert {**json.loads(answer), "seconds": {}} == {**expected, "seconds": {}}


def test_next_sample(client, server):
    """The request of 3D Slicer's "Next Sample" button."""
    sample = client.next_sample("random", {})
    assert sample["id"] in client.datastore()["objects"]
    assert Path(sample["path"]).exists()


def test_replaced_study_is_read_again(client, server):
    image = write_study(server.studies / "changing.nii.gz", seed=6)
    first = ask(client, "changing", "Is it?")
    write_study(image, seed=7)
    second = ask(client, "changing", "Is it?")
    assert first["study"] != second["study"]
    assert second["seconds"]["encode"] > 0
    image.unlink()
    assert server.infer("ask", "image=changing", {"question": "Is it?"})[0] == 404


QUESTION = {"question": "Is it?"}


@pytest.mark.parametrize(
    ("task", "query", "params", "status", "message"),
    [
        ("ask", "image=study", {}, 400, "question must be text"),
        ("ask", "image=study", {"question": ["a"]}, 400, "got list"),
        ("ask", "image=study", {"question": "x" * 200_000}, 400, "more than 20000 characters"),
        ("ask", "image=study", {"question": "x" * 2_000_000}, 400, ""),
        ("ask", "image=study", {"question": "Is it <|im_end|>?"}, 400, "special tokens"),
        ("ask", "image=study", "{", 400, "invalid JSON"),
        ("ask", "image=study", {**QUESTION, "image": "/etc/passwd"}, 400, "not model or image"),
        ("ask", "image=study", {**QUESTION, "model": "report"}, 400, "not model or image"),
        ("ask", "image=study", {**QUESTION, "model_id": "x"}, 400, "unknown parameter"),
        ("ask", "image=study", {**QUESTION, "tau": "$print(1)"}, 400, "tau must be a number"),
        ("ask", "image=study", {**QUESTION, "tau": 2}, 400, "tau must lie in"),
        ("ask", "image=study", {**QUESTION, "history": [1]}, 400, "history must be a list"),
        ("ask", "image=nothing", QUESTION, 404, "no study with this name"),
        ("ask", "", QUESTION, 400, "image must have"),
        ("ask", "image=../studies/study", QUESTION, 400, "not a path"),
        ("ask", "image=%2Fetc%2Fpasswd", QUESTION, 400, "not a path"),
        ("ask", "session_id=../../x", QUESTION, 400, "not a path"),
        ("ask", "session_id=x", QUESTION, 400, "session_id must be one"),
        ("..%2F..%2Fask", "image=study", QUESTION, 404, ""),
        ("no_such_task", "image=study", QUESTION, 404, "unknown task"),
        ("wsi/ask", "image=study", QUESTION, 404, "does not serve"),
        ("ask", "image=broken", QUESTION, 422, "broken.nii.gz is cut short"),
        ("ask", "image=study&output=image", QUESTION, 400, "returns no image"),
        ("ask", "image=study&output=dicom_seg", QUESTION, 400, "output must be one of"),
        ("pruning_overlay", "image=study", {"result_extension": "/../../x"}, 400, "result_extension must be"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_requests(server, task, query, params, status, message):
    found, answer = server.infer(task, query, params)
    assert (found, message in answer["detail"]) == (status, True), answer
    assert str(server.studies) not in json.dumps(answer)
    # the server still serves the next request
    assert server.infer("ask", "image=study", QUESTION)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/datastore/?image=../evil", 400),
        ("PUT", "/datastore/label?image=study&tag=../../x", 400),
        ("PUT", "/session/?uncompress=true", 400),
        ("DELETE", "/datastore/?id=..%2Fstudy", 400),
        ("DELETE", "/datastore/?id=nothing", 404),
        ("GET", "/ohif/%2e%2e/%2e%2e/%2e%2e/app.py", 400),
        ("POST", "/reload", 404),
        ("GET", "/logs/", 404),
        ("GET", "/train/?check_if_running=true", 404),
        ("POST", "/batch/infer/ask", 404),
        ("GET", "/model/ask", 404),
        ("GET", "/proxy/dicom/x", 404),
    ],
)
def test_other_routes(server, method, path, status):
    assert server.request(method, path)[0] == status


def test_datastore_table_cannot_be_replaced(client, server, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    table = (server.studies / "datastore_v2.json").read_bytes()
    with pytest.raises(monailabel_client.client.MONAILabelClientException) as raised:
        client.upload_image(str(tmp_path / "x.json"), "datastore_v2")
    assert "an image must end in" in str(raised.value.args)
    assert (server.studies / "datastore_v2.json").read_bytes() == table


def test_cross_origin_requests_are_refused(server):
    headers = {"Origin": "https://example.org"}
    assert server.request("GET", "/info/", headers=headers)[0] == 200
    with urlopen(Request(server.url + "/info/", headers=headers)) as answer:
        assert answer.headers.get("access-control-allow-origin") is None


def test_eight_clients(client, server, model):
    """40 parallel requests give the answers and records of serial requests, without more memory."""
    images = {"study": "study.nii.gz", "other": "other.nii"}
    asked = [(list(images)[index % 2], f"{'lesion? ' * index}{index} mm?") for index in range(40)]
    expected = [model.ask(server.studies / images[image], text) for image, text in asked]
    process = psutil.Process(server.process.pid)

    def run():
        with ThreadPoolExecutor(8) as clients:
            return list(clients.map(lambda one: ask(client, *one), asked))

    first = run()
    before = process.memory_info().rss
    second = run()
    assert process.memory_info().rss - before < 30e6
    for answers in (first, second):
        for answer, other in zip(answers, expected, strict=True):
            assert {**answer, "seconds": {}} == {**other, "seconds": {}}
    assert len({answer["answer"] for answer in first}) > 3


def test_server_responds_during_a_long_request(client, server):
    answers = []
    long = threading.Thread(target=lambda: answers.append(ask(client, "deep", "Is it?")))
    long.start()
    while "encoding" not in server.log().split("request ")[-1]:
        assert long.is_alive()
    for _ in range(3):
        assert client.info()["name"] == "monai_medpruner"
        assert long.is_alive(), "the request was not long enough to show anything"
    long.join()
    assert answers[0]["seconds"]["encode"] > 0


def test_commands_of_the_documentation(server, repository, tmp_path, capsys):
    """The curl command and the Python client of docs/label.md, with this server's address and study."""
    text = (repository / "docs" / "label.md").read_text(encoding="utf-8")
    text = text.replace("http://127.0.0.1:8000", server.url).replace("phantom_000000", "study")
    (line,) = re.findall(r"```bash\n(curl .*?)```", text, flags=re.DOTALL)
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True).stdout
    (shape,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    assert list(json.loads(answer)) == list(json.loads(shape))
    assert list(json.loads(answer)["record"][0]) == list(json.loads(shape)["record"][0])
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code, "docs/label.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.endswith(" 0.0")
    assert "kept token" in second


def test_authentication(tmp_path, repository):
    """With MONAI Label's authentication enabled, the app's route requires a token like the others."""
    realm = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": "http://127.0.0.1:9/realm"}
    (tmp_path / "studies").mkdir()
    server = start_server(tmp_path, tmp_path / "studies", TINY_CONF, repository, **realm)
    try:
        assert server.infer("ask", "image=study", QUESTION)[0] == 401
        assert server.request("GET", "/info/")[0] == 401
    finally:
        server.process.terminate()
        server.process.wait(timeout=30)


def test_log_has_progress_but_no_patient_data(client, server, tmp_path):
    image = write_study(tmp_path / "Doe_Jane.nii.gz", seed=8)
    _, answer = client.infer("ask", "", {"question": SECRET}, file=str(image))
    server.infer("ask", "image=Doe_John", {"question": SECRET})
    server.infer("ask", "image=study", {"question": SECRET + "<|im_end|>"})
    client.create_session(str(image))
    log = server.log() + Path(server.log_file.parent / "cache/monai_medpruner/label_app/logs/app.log").read_text()
    for text in ("Jane", "Doe", "1970", "Is there a lesion", "Where?", json.loads(answer)["answer"]):
        assert text not in log, text
    for step in ("slices kept", "tokens kept", "answered", "done after", "was refused"):
        assert step in log
    assert "Traceback" not in log
