# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The viewer with NiiVue in headless Chromium: what it shows is what the files have, and nothing leaves the machine."""

from __future__ import annotations

import importlib.util
import re
import threading
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
from chromium import BRIGHT, DARK, GROUND, media, open_browser, press, requests, screenshot, size
from PIL import Image
from report_runs import record_of, write_ct, write_run

from monai_medpruner.report import keep_map, study_server

TOKENS = ["not seen by the model", "merged or dropped", "selected", "contextual"]
PATIENCE = 240  # seconds: without a graphics card, WebGL runs on the processor


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Path of the image, record, and the server of its page, which answers."""
    if importlib.util.find_spec("ipyniivue") is None:
        pytest.skip("needs ipyniivue (pip install --no-deps ipyniivue==2.4.4)")
    folder = tmp_path_factory.mktemp("run")
    path = write_ct(folder / "ct.nii.gz")
    record = record_of(path)
    write_run(folder / "out", record)
    with study_server(folder / "out", mask=folder / "mask.nii.gz") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path, record, server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(study, tmp_path_factory):
    """A session with WebGL 2 on the processor and the page in it; afterward nothing went wrong or left the machine."""
    from selenium.webdriver.support.ui import WebDriverWait

    profile = tmp_path_factory.mktemp("profile")
    session = open_browser(profile, "use-angle=swiftshader", "enable-unsafe-swiftshader", "ignore-gpu-blocklist")
    try:
        media(session, "light")
        size(session, 1360)
        session.get("about:blank")
        requests(session)
        session.get(study[2].url)
        WebDriverWait(session, PATIENCE).until(
            lambda one: one.execute_script(
                "return document.documentElement.dataset.ready || !document.getElementById('problem').hidden"
            )
        )
        assert session.find_element("id", "problem").text == ""
        yield session
        assert session.get_log("browser") == []
        asked = {url.removeprefix(study[2].url) for url in requests(session) if not url.startswith("data:")}
        assert asked - {"importance.nii.gz"} == {"", "niivue.js", "volume.nii", "labels.nii.gz", "mask.nii.gz"}
    finally:
        session.quit()


def canvas(browser):
    return browser.find_element("id", "planes")


def picture(browser):
    """The three planes, gray and color."""
    return np.asarray(Image.open(BytesIO(canvas(browser).screenshot_as_png)).convert("RGB"), dtype=float)


def click(browser, across, down):
    """Click at shares of the width and the height of the planes."""
    from selenium.webdriver.common.action_chains import ActionChains

    box = canvas(browser).rect
    offset = round((across - 0.5) * box["width"]), round((down - 0.5) * box["height"])
    ActionChains(browser).move_to_element_with_offset(canvas(browser), *offset).click().perform()


def readout(browser):
    return {name: browser.find_element("id", name).text for name in ("place", "value", "slice", "token", "inside")}


def position(browser):
    """RAS mm of the crosshair, as the page says it."""
    found = re.fullmatch(r"([RL]) ([\d.]+)\s+([AP]) ([\d.]+)\s+([SI]) ([\d.]+) mm", readout(browser)["place"])
    letters, numbers = found.groups()[::2], found.groups()[1::2]
    return np.array([float(n) * (-1 if one in "LPI" else 1) for one, n in zip(letters, numbers, strict=True)])


def check_readout(browser, study):
    """What the page says of the voxel at its position, against nibabel and the record."""
    path, record, _ = study
    image = nib.load(path)
    place = nib.affines.apply_affine(np.linalg.inv(image.affine), position(browser))
    voxel = tuple(np.rint(place).astype(int).clip(0, np.array(image.shape) - 1))
    said = readout(browser)
    index = int(said["slice"].split(",")[0])
    assert said["value"] == f"{image.dataobj[voxel]:g} HU"
    assert said["token"] == TOKENS[keep_map(record).labels[voxel]]
    assert (said["token"] != TOKENS[0]) == (index in record.slice_indices)
    return index


def test_the_crosshair_tells_what_the_files_have(browser, study):
    """Also after clicks into each plane; the patient's right is on the left."""
    from selenium.webdriver.common.keys import Keys

    _, record, _ = study
    assert check_readout(browser, study) == 5  # the middle of the lesion
    assert readout(browser)["inside"] == "inside"
    press(browser, Keys.HOME)
    assert check_readout(browser, study) == 0
    press(browser, Keys.ARROW_RIGHT)
    assert check_readout(browser, study) == 1
    press(browser, Keys.PAGE_DOWN)
    assert check_readout(browser, study) == min(index for index in record.slice_indices if index > 1)
    click(browser, 0.05, 0.3)
    check_readout(browser, study)
    right = position(browser)
    click(browser, 0.25, 0.3)
    check_readout(browser, study)
    assert position(browser)[0] < right[0] - 5
    assert readout(browser)["inside"] == "outside"
    browser.find_element("css selector", "h1").click()


def test_overlays_and_windows(browser, study):
    from selenium.webdriver.common.keys import Keys

    press(browser, Keys.HOME)
    tokens = picture(browser)
    assert tokens.std() > 10
    assert np.ptp(tokens, axis=2).max() > 40  # the tint
    press(browser, "t")
    press(browser, "o")
    plain = picture(browser)
    assert plain.mean() > tokens.mean()  # nothing is dimmed
    press(browser, "2")
    assert np.abs(picture(browser) - plain).mean() > 5
    press(browser, "1")
    np.testing.assert_allclose(picture(browser), plain, atol=2)
    press(browser, "h")
    wait_for(browser, lambda: "times the mean" in browser.find_element("id", "weight").text)
    heat = picture(browser)
    assert np.abs(heat - plain).mean() > 2
    assert np.abs(heat - tokens).mean() > 2
    press(browser, "t")
    press(browser, "o")
    np.testing.assert_allclose(picture(browser), tokens, atol=2)
    pressed = [one.text for one in browser.find_elements("css selector", "#overlays [aria-pressed=true]")]
    assert pressed == ["Tokens", "Lesion"]


def wait_for(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, PATIENCE).until(lambda _: condition())


@pytest.mark.parametrize("width", [400, 1360])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_and_widths(browser, theme, width, tmp_path):
    media(browser, theme)
    size(browser, width)
    assert browser.execute_script(GROUND) == (BRIGHT if theme == "light" else DARK)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wait_for(browser, lambda: (canvas(browser).rect["height"] > canvas(browser).rect["width"]) == (width == 400))
    assert picture(browser).std() > 10
    screenshot(browser, f"view_{theme}_{width}", tmp_path)
