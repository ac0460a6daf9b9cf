# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page in headless Chromium: what it draws, its keys, its themes and widths, and that it asks no network."""

from __future__ import annotations

import pytest
from chromium import BRIGHT, DARK, GROUND, media, open_browser, press, requests, screenshot, size
from report_runs import record_of, write_ct, write_run
from run_rows import write_sweep_runs

from monai_medpruner.metrics import compare_command
from monai_medpruner.report import write_comparison, write_reports, write_sweep

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A session of headless Chromium that logs the console and the network."""
    session = open_browser(tmp_path_factory.mktemp("profile"), "disable-gpu")
    yield session
    session.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a lesion, another one of the same image, and their record."""
    folder = tmp_path_factory.mktemp("run")
    path = write_ct(folder / "ct.nii.gz")
    record = record_of(path)
    write_run(folder / "out", record, [(HOSTILE, HOSTILE)])
    write_run(folder / "other", record_of(path, threshold=0.05, seed=1))
    return folder, record


@pytest.fixture
def shown(browser, run, tmp_path):
    """Return a function: options of the report -> the page is open; afterward nothing was fetched or went wrong."""
    folder, _ = run

    def show(**options):
        ((path, _),) = write_reports(folder / "out", **options)
        media(browser, "light")
        size(browser, 1360)
        browser.get_log("performance")
        browser.get(path.as_uri())
        return browser

    yield show
    assert browser.get_log("browser") == []
    asked = requests(browser)
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert browser.title != "ran"


def counts(browser):
    rows = browser.find_elements("css selector", "#counts tr")
    return {
        row.find_element("css selector", "th").text: int(row.find_element("css selector", "td").text) for row in rows
    }


def chosen(browser):
    return int(browser.find_element("id", "number").text.split()[0])


def test_counts_are_the_records_on_every_slice(shown, run):
    from selenium.webdriver.common.keys import Keys

    _, record = run
    browser = shown()
    press(browser, Keys.HOME)
    kept = dict(zip(record.slice_indices, record.slices, strict=True))
    for index in range(12):
        assert chosen(browser) == index
        if index in kept:
            one = kept[index]
            merged = int(((one.merged_into >= 0) & ~one.keep).sum())
            assert counts(browser) == {
                "selected": int(one.primary.sum()),
                "contextual": int(one.contextual.sum()),
                "merged into others": merged,
                "dropped": 35 - int(one.keep.sum()) - merged,
                "all tokens of the slice": 35,
            }
            assert not browser.find_elements("css selector", ".unread")
        else:
            assert browser.find_element("css selector", ".unread").text == "not read"
        press(browser, Keys.ARROW_RIGHT)
    assert chosen(browser) == 11
    classes = [one.get_attribute("class") for one in browser.find_elements("css selector", "#strip button")]
    assert [index for index, name in enumerate(classes) if name == "kept"] == list(record.slice_indices)
    assert len(browser.find_elements("css selector", "#distances .dot.on")) == len(kept)
    assert len(browser.find_elements("css selector", "#distances .dot")) == 12
    assert browser.find_element("css selector", ".answer").text == HOSTILE


def test_slider_keys_touch_and_buttons(shown, run):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.keys import Keys

    _, record = run
    browser = shown()
    assert chosen(browser) == record.slice_indices[len(record.slice_indices) // 2]
    slider = browser.find_element("id", "slider")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert chosen(browser) == 1
    browser.execute_script("document.activeElement.blur()")
    press(browser, Keys.HOME, Keys.PAGE_DOWN)
    assert chosen(browser) == record.slice_indices[1]
    press(browser, Keys.END, Keys.PAGE_UP)
    assert chosen(browser) == max(index for index in record.slice_indices if index < 11)
    browser.find_elements("css selector", "#strip button")[3].click()
    browser.find_element("id", "next").click()
    assert chosen(browser) == 4
    frame = browser.find_element("css selector", ".frame")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    finger = ActionBuilder(browser, mouse=PointerInput("touch", "finger"))
    finger.pointer_action.move_to(frame, 60, 0).pointer_down().move_to(frame, -60, 0).pointer_up()
    finger.perform()
    assert chosen(browser) == 5
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(frame), 0, -120).perform()
    assert chosen(browser) == 4


def test_windows_and_layers(shown, run):
    from selenium.webdriver.common.action_chains import ActionChains

    folder, record = run
    browser = shown(mask=folder / "mask.nii.gz")
    lesion = [index for index in (4, 5, 6) if index in record.slice_indices]
    assert lesion
    assert chosen(browser) == lesion[len(lesion) // 2]  # a slice that was read, of those that show it
    assert "It shows the lesion." in browser.find_element("id", "why").text
    assert len(browser.find_elements("css selector", "#distances .lane.lesion")) == 3
    assert [one.text for one in browser.find_elements("css selector", "#strip .lesion")] == ["4", "5", "6"]
    image = browser.find_element("css selector", ".frame img")
    press(browser, "1")
    pictures = {image.get_attribute("src")}
    for key in "23":
        press(browser, key)
        pictures.add(image.get_attribute("src"))
        pressed = browser.find_elements("css selector", "#windows [aria-pressed=true]")
        assert len(pressed) == 1
    assert len(pictures) == 3
    drawn = len(browser.find_elements("css selector", ".frame svg *"))
    for key, name in (("t", "tokens"), ("l", "lines"), ("o", "outline")):
        before = browser.find_element("css selector", f"[data-layer={name}]").get_attribute("aria-pressed")
        press(browser, key)
        assert browser.find_element("css selector", f"[data-layer={name}]").get_attribute("aria-pressed") != before
    assert len(browser.find_elements("css selector", ".frame svg *")) < drawn
    press(browser, "l")
    ActionChains(browser).move_to_element_with_offset(browser.find_element("css selector", ".frame"), 3, 3).perform()
    assert "Token in row 2, column 3" in browser.find_element("id", "token").text
    press(browser, "h")
    heat = browser.find_elements("css selector", ".frame svg > rect")
    assert len(heat) == (35 if 5 in record.slice_indices else 0)


@pytest.mark.parametrize("width", [400, 1360])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_and_widths(shown, run, theme, width, tmp_path):
    """Nothing is wider than the page, and the button turns the theme around."""
    folder, _ = run
    browser = shown(mask=folder / "mask.nii.gz", against=folder / "other")
    media(browser, theme)
    size(browser, width)
    assert browser.execute_script(GROUND) == (BRIGHT if theme == "light" else DARK)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    screenshot(browser, f"report_{theme}_{width}", tmp_path)
    browser.find_element("id", "theme").click()
    assert browser.execute_script(GROUND) == (DARK if theme == "light" else BRIGHT)


def test_two_runs(shown, run):
    folder, record = run
    browser = shown(against=folder / "other")
    assert [one.text for one in browser.find_elements("css selector", "figcaption")] == [
        "A: this run",
        "B: the other run",
    ]
    other = record_of(folder / "ct.nii.gz", threshold=0.05, seed=1)
    badges = {}
    for index, button in enumerate(browser.find_elements("css selector", "#strip button")):
        marks = button.find_elements("css selector", ".badge")
        badges[index] = marks[0].get_attribute("textContent") if marks else ""
    for index in range(12):
        assert badges[index] == "A" * (index in record.slice_indices) + "B" * (index in other.slice_indices)


def test_foreign_scripts_are_refused(shown):
    """Also one that finds its way into the page: the policy names the own script alone."""
    browser = shown()
    browser.execute_script(
        "const one = document.createElement('div'); one.innerHTML = '<img src=x onerror=\"document.title=`ran`\">';"
        "document.body.append(one)"
    )
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in message for message in refused)
    assert browser.title != "ran"


def test_print(shown):
    """As on paper: no controls, black on white."""
    browser = shown()
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert browser.execute_script(GROUND) == BRIGHT
    assert not browser.find_element("id", "slider").is_displayed()
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_four_hundred_slices_in_two_seconds(browser, tmp_path):
    path = write_ct(tmp_path / "ct.nii.gz", depth=400)
    write_run(tmp_path / "out", record_of(path, threshold=None, grid=(8, 8)))
    ((page, _),) = write_reports(tmp_path / "out")
    browser.get(page.as_uri())
    assert len(browser.find_elements("css selector", "#strip button")) == 400
    assert int(browser.execute_script("return document.documentElement.dataset.ready")) < 2000


@pytest.mark.parametrize("name", ["sweep", "compare"])
def test_pages_of_runs(browser, tmp_path, name):
    """Both themes and widths; nothing is fetched, and the link to a report is one."""
    write_sweep(write_sweep_runs(tmp_path), tmp_path)
    paths = [str(tmp_path / f"run{number}" / "predictions.jsonl") for number in (0, 1)]
    write_comparison(compare_command(*paths, "meduni-vqa", resamples=20), *paths, tmp_path / "compare.html")
    browser.get_log("performance")
    for theme, width in (("light", 1360), ("dark", 400)):
        media(browser, theme)
        size(browser, width)
        browser.get((tmp_path / f"{name}.html").as_uri())
        assert browser.execute_script(GROUND) == (BRIGHT if theme == "light" else DARK)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        screenshot(browser, f"{name}_{theme}_{width}", tmp_path)
        browser.find_element("id", "theme").click()
        assert browser.execute_script(GROUND) == (DARK if theme == "light" else BRIGHT)
    assert browser.find_element("css selector", ".charts svg, .forest svg").rect["height"] > 90
    assert browser.title != "ran"
    assert set(requests(browser)) == {(tmp_path / f"{name}.html").as_uri()}
    assert browser.get_log("browser") == []
    link = browser.find_element("css selector", "table a")
    assert link.get_attribute("href") == (tmp_path / "run1" / "reports" / "v0.html").as_uri()
