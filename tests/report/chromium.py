# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Headless Chromium for the tests of pages: a session that logs the console and the network."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

OPTIONS = (
    *("headless", "no-sandbox", "no-first-run", "window-size=1360,1000"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)
BRIGHT, DARK = "rgb(255, 255, 255)", "rgb(16, 18, 21)"
#: of the page
GROUND = "return getComputedStyle(document.body).backgroundColor"


def open_browser(profile, *more):
    """Open a session with further options; skip the test where there is no browser."""
    pytest.importorskip("selenium", reason="needs selenium (pip install selenium)")
    chromium, driver = (
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "google-chrome"), ("chromedriver",))
    )
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (*OPTIONS, *more):
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def requests(browser):
    """The addresses that were asked for since this was called last."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]


def media(browser, theme):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def size(browser, width, height=1000):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def screenshot(browser, name, tmp_path):
    """Keep a picture of the whole page; in MEDPRUNER_SCREENSHOTS where that is set."""
    width = browser.execute_script("return innerWidth")
    size(browser, width, browser.execute_script("return document.documentElement.scrollHeight"))
    folder = Path(os.environ.get("MEDPRUNER_SCREENSHOTS", tmp_path))
    assert browser.save_screenshot(str(folder / f"{name}.png"))
