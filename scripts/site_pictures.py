# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Draw the pictures of the documentation that come out of a browser, into docs/pictures.

    python scripts/site_pictures.py [--mermaid node_modules/mermaid/dist/mermaid.min.js]

Parts of a report (``medpruner report --mask``) of the third phantom of ``medpruner phantom --preset small --count 3
--seed 7`` under the small VideoLLaMA3; or, where mermaid's script is given (``npm install mermaid``), the diagrams of
the pages. Needs selenium, Chromium and its driver.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from selenium import webdriver
from site_diagrams import DIAGRAM, PICTURES, REPOSITORY, diagram_picture

from monai_medpruner.cli.main import main as medpruner

#: picture -> the first and the last element of the report that it shows
PARTS = {
    "report_slices": ("#strip", "#distance_note"),
    "report_tokens": ("#figures", "#mass_note"),
    "report_lesion": ("#lesion", "#lesion"),
}
SETTINGS = ("--gamma", "0.04", "--guard_mm", "25", "--guard_threshold", "0.25")
WIDTH, COLORS = 1100, 128
_UNION = """
const boxes = arguments[0].map((one) => document.querySelector(one).getBoundingClientRect());
const [left, top] = [Math.min(...boxes.map((b) => b.left)), Math.min(...boxes.map((b) => b.top))];
const [right, bottom] = [Math.max(...boxes.map((b) => b.right)), Math.max(...boxes.map((b) => b.bottom))];
return {x: left + scrollX - 8, y: top + scrollY - 8, width: right - left + 16, height: bottom - top + 16, scale: 1};
"""
_DRAW = """
const done = arguments[1];
mermaid.initialize({startOnLoad: false, theme: 'neutral', htmlLabels: false, flowchart: {htmlLabels: false}});
mermaid.render('diagram', arguments[0]).then(({svg}) => done(svg), (error) => done('error: ' + error));
"""


def main(arguments: argparse.Namespace) -> None:
    """Draw the pictures and print their sizes."""
    PICTURES.mkdir(exist_ok=True)
    with browser() as session, TemporaryDirectory() as folder:
        if arguments.mermaid is not None:
            draw_diagrams(session, arguments.mermaid.resolve(), Path(folder))
            return
        for name, content in report_parts(session, Path(folder)).items():
            _save(PICTURES / f"{name}.png", content)


@contextmanager
def browser() -> Iterator[Any]:
    """Open headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for word in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", f"window-size={WIDTH},1000"):
        options.add_argument(f"--{word}")
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield session
    finally:
        session.quit()


def report_parts(session: Any, folder: Path) -> dict[str, bytes]:
    """Return the parts of the report as PNG, with the slice chosen that shows most of the lesion."""
    medpruner(["phantom", "--preset", "small", "--count", "3", "--seed", "7", "--out", str(folder / "phantoms")])
    lines = (folder / "phantoms" / "phantoms.jsonl").read_text(encoding="utf-8").splitlines()
    files = {name: str(folder / "phantoms" / json.loads(lines[-1])[name]) for name in ("image", "lesion_mask")}
    question = ("--question", "Which organ bears the lesion?", "--output_dir", str(folder / "out"))
    model = ("--bundle", "medpruner_phantom", "--family", "video_llama_3")
    medpruner(["ask", "--image", files["image"], *model, *SETTINGS, *question])
    medpruner(["report", str(folder / "out"), "--mask", files["lesion_mask"]])
    (page,) = (folder / "out" / "reports").glob("*.html")
    session.get(page.as_uri())
    light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    return {name: _shot(session, list(ends)) for name, ends in PARTS.items()}


def _shot(session: Any, ends: list[str]) -> bytes:
    clip = session.execute_script(_UNION, ends)
    shot = session.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return base64.b64decode(shot["data"])


def draw_diagrams(session: Any, script: Path, folder: Path) -> None:
    """Draw each diagram of the pages that has no picture yet, and delete the pictures of diagrams that are gone."""
    page = folder / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"><script src="{script.as_uri()}"></script>', encoding="utf-8")
    session.get(page.as_uri())
    pages = sorted((REPOSITORY / "docs").glob("*.md"))
    diagrams = [found for page in pages for found in DIAGRAM.findall(page.read_text(encoding="utf-8"))]
    wanted = {diagram_picture(one): one for one in diagrams}
    for path in set(PICTURES.glob("diagram_*.svg")) - set(wanted):
        path.unlink()
    for path, diagram in wanted.items():
        drawn = session.execute_async_script(_DRAW, diagram)
        if not drawn.startswith("<svg"):
            raise RuntimeError(f"mermaid did not draw a diagram: {drawn}")
        path.write_text(drawn + "\n", encoding="utf-8")
        sys.stdout.write(f"{path.name}: {len(drawn) // 1024} KiB\n")


def _save(path: Path, content: bytes) -> None:
    """Write a picture with few colors, rare ones among them, at a third of the size."""
    Image.open(BytesIO(content)).convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    sys.stdout.write(f"{path.name}: {path.stat().st_size // 1024} KiB\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mermaid", type=Path, help="mermaid.min.js, to draw the diagrams instead")
    main(parser.parse_args())
