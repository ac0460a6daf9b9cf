# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The viewer: what its server answers, the volumes that it serves, and its errors. NiiVue is a stand-in here."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import sys
import threading
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
from report_runs import record_of, write_ct, write_run
from test_keep_map import DENSE, EVEN, same_points, write_nifti, write_series

from monai_medpruner.cli.main import main
from monai_medpruner.errors import OutputFolderError, PackageVersionError, SettingsError, UnreadableVolumeError
from monai_medpruner.report import keep_map, study_server
from monai_medpruner.report import niivue as niivue_script
from monai_medpruner.report.report_data import RunOfStudy
from monai_medpruner.report.study_image import recorded_volume, study_windows
from monai_medpruner.report.view_files import view_files
from monai_medpruner.report.view_server import LocalServer, ServedFile

FILES = {"": ServedFile(b"<p>page</p>", "text/html"), "a.nii": ServedFile(bytes(range(256)) * 1000)}


@pytest.fixture
def serving():
    """Return a function: files, port -> a server that answers; it is closed afterward."""
    running = []

    def start(files=FILES, port=0):
        server = LocalServer(files, port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(server, path, method="GET", host="127.0.0.1"):
    """Send a request as it stands; return status, headers and body."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_files_by_their_names(serving):
    server = serving()
    status, headers, body = ask(server, server.root)
    assert (status, body, headers["Content-Type"]) == (200, b"<p>page</p>", "text/html")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Python" not in headers["Server"]
    assert ask(server, f"{server.root}a.nii")[2] == FILES["a.nii"].content
    status, headers, body = ask(server, f"{server.root}a.nii", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "256000")
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}{server.root}"


def test_nothing_else_is_found(serving, tmp_path):
    server = serving()
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    other = "/" + "a" * (len(server.root) - 2) + "/"
    beside = [f"{server.root}{name}" for name in ("b", "a.nii/", "/a.nii", "../a.nii", "%61.nii", "a.nii?b=1", "\xe9")]
    outside = ["/", "/a.nii", server.root[:-1], other, f"{other}a.nii", f"/..{server.root}"]
    escaping = [
        f"{server.root}../../..{tmp_path}/secret",
        f"{server.root}{tmp_path}/secret",
        f"file://{tmp_path}/secret",
    ]
    for path in [*beside, *outside, *escaping, f"http://127.0.0.1{server.root}"]:
        status, _, body = ask(server, quote(path, safe="/%:?=."))
        assert status == 404, path
        assert b"secret" not in body
    assert serving().root != server.root


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost", "LOCALHOST:99"])
def test_names_of_this_machine(serving, host):
    """With any port, which an SSH tunnel changes."""
    server = serving()
    assert ask(server, server.root, host=host)[0] == 200


@pytest.mark.parametrize("host", [None, "", "evil.example", "127.0.0.1.evil.example", "evil.example:80", "[::1", "a@b"])
def test_another_host_is_refused(serving, host):
    """A page whose name was made to resolve to this machine sends its own name."""
    server = serving()
    status, _, body = ask(server, f"{server.root}a.nii", host=host)
    assert status == 403
    assert FILES["a.nii"].content not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_reading(serving, method):
    server = serving()
    status, headers, _ = ask(server, server.root, method)
    assert status == 501
    assert not any(name.startswith("Access-Control") for name in headers)


def test_this_machine_alone(serving):
    server = serving()
    port = server.server_address[1]
    assert server.socket.getsockname() == ("127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):  # another address of the same machine
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_ports():
    with LocalServer(FILES) as server:
        port = server.server_address[1]
        with pytest.raises(SettingsError, match=f"port {port} is in use: choose another with --port"):
            LocalServer(FILES, port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with LocalServer(FILES, port) as again:
        assert again.server_address[1] == port
    for wrong in (-1, 2**16):
        with pytest.raises(SettingsError, match=f"0 to 65535, got {wrong}"):
            LocalServer(FILES, wrong)


def run_of(record):
    return RunOfStudy(record, [{"settings": record.settings}])


def image(served):
    content = served.content
    return nib.Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def voxels(served):
    return np.asarray(image(served).dataobj)


def page_data(files):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', files[""].content.decode())
    return json.loads(found[1])


@pytest.mark.parametrize(
    ("plane", "tilt", "shear"),
    [("axial", 0.0, 0.0), ("axial", 0.35, 0.0), ("axial", 0.0, 1.5), ("coronal", 0.0, 0.0), ("coronal", 0.35, 0.0)],
)
@pytest.mark.parametrize(("axes", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (1, -1, 1))])
def test_volumes_on_the_grid_of_the_file(tmp_path, axes, signs, plane, tilt, shear):
    """Voxel for voxel what nibabel reads, and the keep-map where the image is."""
    expected, affine = write_nifti(tmp_path / "ct.nii.gz", axes, signs, tilt, shear)
    record = record_of(tmp_path / "ct.nii.gz", plane=plane)
    files = view_files(run_of(record))
    np.testing.assert_array_equal(voxels(files["volume.nii"]), expected)
    assert voxels(files["volume.nii"]).dtype == np.int16
    for name in ("volume.nii", "labels.nii.gz", "importance.nii.gz"):
        np.testing.assert_allclose(image(files[name]).affine, affine, atol=1e-5)
    kept = keep_map(record)
    np.testing.assert_array_equal(voxels(files["labels.nii.gz"]), kept.labels)
    np.testing.assert_array_equal(voxels(files["importance.nii.gz"]), kept.importance)
    data = page_data(files)
    np.testing.assert_allclose(data["toMm"], affine, atol=1e-5)
    np.testing.assert_allclose(np.array(data["toVoxel"]) @ affine, np.eye(4), atol=1e-5)
    # the page's way from a voxel to a slice, against the label map
    axis, length = data["sliceAxis"], data["shape"][data["sliceAxis"]]
    read = {
        length - 1 - place if data["sliceFlipped"] else place
        for place in np.flatnonzero(kept.labels.any(tuple(one for one in range(3) if one != axis)))
    }
    assert read == set(record.slice_indices)
    assert len(data["slices"]) == length
    assert kept.labels[tuple(data["start"])] > 0


def test_a_series(tmp_path):
    (tmp_path / "series").mkdir()
    landmarks = write_series(tmp_path / "series", EVEN)
    files = view_files(run_of(record_of(tmp_path / "series")))
    served = image(files["volume.nii"])
    found = nib.affines.apply_affine(served.affine, np.argwhere(np.asarray(served.dataobj) == DENSE)) * [-1, -1, 1]
    same_points(found, landmarks, 1e-3)
    np.testing.assert_array_equal(image(files["labels.nii.gz"]).affine, served.affine)


def test_mask_and_start(tmp_path):
    """The mask lies on the same grid with other axes; the page begins in the middle of the lesion."""
    path = write_ct(tmp_path / "ct.nii.gz")
    files = view_files(run_of(record_of(path)), tmp_path / "mask.nii.gz")
    expected = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)[::-1, :, ::-1]
    np.testing.assert_array_equal(voxels(files["mask.nii.gz"]), expected)
    np.testing.assert_allclose(image(files["mask.nii.gz"]).affine, nib.load(path).affine, atol=1e-5)
    start = page_data(files)["start"]
    assert expected[tuple(start)] == 1
    assert start[2] == 5  # of 4, 5 and 6
    np.testing.assert_allclose(start[:2], np.argwhere(expected)[:, :2].mean(0), atol=0.5)


def test_fractions_and_no_scores(tmp_path):
    """Voxels that are no whole numbers stay as they are; without scores there is no map of importance."""
    path = write_ct(tmp_path / "ct.nii.gz")
    source = nib.load(path)
    nib.save(nib.Nifti1Image(source.get_fdata(dtype=np.float32) + np.float32(0.25), source.affine), path)
    files = view_files(run_of(record_of(path, scores=False)))
    np.testing.assert_array_equal(voxels(files["volume.nii"]), nib.load(path).get_fdata(dtype=np.float32))
    assert set(files) == {"", "volume.nii", "labels.nii.gz"}
    assert page_data(files)["highImportance"] is None


def test_windows(tmp_path):
    """What became 0 and 1 for the model, in the units of the file, and those of a reader of CT."""
    path = write_ct(tmp_path / "ct.nii.gz")
    minus = "\N{MINUS SIGN}"
    record = record_of(path)
    names, intervals = zip(*study_windows(record, recorded_volume(record)), strict=True)
    assert names == (
        f"As the model saw it, {minus}160 to 240 HU",
        f"Lung, {minus}1350 to 150 HU",
        f"Bone, {minus}500 to 1300 HU",
    )
    assert intervals == ((-160, 240), (-1350, 150), (-500, 1300))
    record = record_of(path, modality="mr")
    (_, interval), *_ = study_windows(record, recorded_volume(record))
    np.testing.assert_allclose(interval, np.percentile(nib.load(path).get_fdata(), [0.5, 99.5]))
    np.save(tmp_path / "ct.npy", np.random.default_rng(0).random((1, 6, 8, 10), dtype=np.float32))
    record = record_of(tmp_path / "ct.npy")
    assert study_windows(record, recorded_volume(record)) == [("As the model saw it (unit)", (0.0, 1.0))]
    (window,) = (
        step
        for stage in record.settings["preprocessing"]
        for step in stage["transforms"]
        if step["name"] == "IntensityWindows"
    )
    window["arguments"]["windows"] = "slice_minmax"
    volume = recorded_volume(record)
    ((name, interval),) = study_windows(record, volume)
    assert "each slice in its own" in name
    assert interval == (float(volume.min()), float(volume.max()))


def test_page_says_what_it_is(tmp_path):
    path = write_ct(tmp_path / "<b>.nii.gz")
    page = view_files(run_of(record_of(path)))[""].content.decode()
    assert "Not for clinical use." in page
    assert "The model has random weights: its answers mean nothing." in page
    assert "&lt;b&gt;.nii.gz" in page
    assert "<b>.nii.gz" not in page
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1].replace("&#x27;", "'")
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert re.search(r"script-src 'sha256-[^ ]+' 'self'$", policy)
    assert not re.findall(r"https?://(?!www\.w3\.org)", page)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A run's folder, and NiiVue as a file that does nothing."""
    write_run(tmp_path / "out", record_of(write_ct(tmp_path / "ct.nii.gz")))
    monkeypatch.setattr("monai_medpruner.report.view_files.niivue_module", lambda: b"export const Niivue = null;")
    return tmp_path / "out"


def test_command_until_ctrl_c(results, capsys, monkeypatch):
    """It prints the address, answers, ends by Ctrl-C, frees the port, and leaves nothing behind."""
    before = sorted(results.rglob("*"))
    answers, opened = [], []
    monkeypatch.setenv("DISPLAY", ":0")
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    monkeypatch.setattr("webbrowser.open", opened.append)
    serve = LocalServer.serve_forever

    def served(server, poll_interval=0.05):
        def visit():
            answers.append(server)
            answers.extend(ask(server, f"{server.root}{name}")[::2] for name in ("", "niivue.js"))
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=visit).start()
        serve(server, poll_interval)

    monkeypatch.setattr(LocalServer, "serve_forever", served)
    try:
        main(["view", str(results)])
    finally:
        signal.signal(signal.SIGINT, previous)
    server, page, script = answers
    assert page[0] == script[0] == 200
    assert script[1] == b"export const Niivue = null;"
    written = capsys.readouterr()
    assert written.out == f"{server.url}\n"
    assert written.err.endswith("ended\n")
    assert opened == [server.url]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.server_address, timeout=5)
    assert sorted(results.rglob("*")) == before
    monkeypatch.setattr(LocalServer, "serve_forever", lambda server: None)
    assert main(["view", str(results), "--no_browser"]) is None
    assert len(opened) == 1


def test_true_causes(results, tmp_path, monkeypatch):
    with pytest.raises(OutputFolderError, match=r"neither answers\.jsonl nor predictions\.jsonl"):
        study_server(tmp_path)
    with pytest.raises(SettingsError, match="no study begins with 'zz'"):
        study_server(results, study="zz")
    record = record_of(write_ct(tmp_path / "other.nii.gz", seed=1))
    record.save(results / "records" / f"{record.name}.safetensors")
    line = json.loads((results / "answers.jsonl").read_text(encoding="utf-8"))
    with (results / "answers.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "record": record.name, "image": record.image}) + "\n")
    with pytest.raises(SettingsError, match="shows one study, and 2 of the run fit: choose one with --study"):
        study_server(results)
    with study_server(results, study=record.name) as server:
        np.testing.assert_array_equal(
            voxels(server.files["volume.nii"]), np.asarray(nib.load(tmp_path / "other.nii.gz").dataobj)
        )
    write_ct(tmp_path / "other.nii.gz", seed=2)
    with pytest.raises(OutputFolderError, match="its voxels or its affine were changed"):
        study_server(results, study=record.name)
    (tmp_path / "other.nii.gz").unlink()
    with pytest.raises(UnreadableVolumeError, match="does not exist"):
        study_server(results, study=record.name)


def test_niivue_of_a_package(tmp_path, monkeypatch):
    """The longest string of the widget, decoded, and no other than the known module; nothing is imported."""
    module = "export const Niivue = '\N{GREEK SMALL LETTER GAMMA}\"';" + "/* long */" * 30
    static = tmp_path / "ipyniivue" / "static"
    static.mkdir(parents=True)
    (tmp_path / "ipyniivue" / "__init__.py").write_text("raise ImportError('needs Jupyter')", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "ipyniivue", raising=False)
    with pytest.raises(
        PackageVersionError, match=r'no readable static/widget\.js .* pip install "monai-medpruner\[view\]"'
    ):
        niivue_script.niivue_module()
    (static / "widget.js").write_text(f'var a="x",b="{quote(module)}",c="y";', encoding="utf-8")
    with pytest.raises(PackageVersionError, match=r"does not have NiiVue 0\.65\.0"):
        niivue_script.niivue_module()
    monkeypatch.setattr(niivue_script, "_SHA256", hashlib.sha256(module.encode()).hexdigest())
    assert niivue_script.niivue_module() == module.encode()


def test_without_niivue(results, monkeypatch, capsys):
    monkeypatch.setattr("monai_medpruner.report.view_files.niivue_module", niivue_script.niivue_module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["view", str(results)])
    assert capsys.readouterr().err.endswith('the viewer needs NiiVue: pip install "monai-medpruner[view]"\n')


def test_the_real_niivue():
    if importlib.util.find_spec("ipyniivue") is None:
        pytest.skip("needs ipyniivue (pip install --no-deps ipyniivue==2.4.4)")
    module = niivue_script.niivue_module().decode()
    assert re.search(r"export\{.*\bNiivue\b.*\};?$", module)
