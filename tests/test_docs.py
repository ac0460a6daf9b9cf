# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The pages: their Python runs, their links lead somewhere, their commands and tables are up to date.

The Python blocks of a page run one after the other in one namespace. A mark before a block says what a reader has
already, ``<!-- given: NAME ... -->``, and the test gives it; or why the block cannot run here, ``<!-- not run:
REASON -->``. Ids of checkpoints on the Hub are replaced by small models.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_medpruner.cli.main import main
from monai_medpruner.results import LINE_SCHEMA

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MODELS = REPOSITORY / "bundles" / "medpruner_phantom" / "models"
BLOCK = re.compile(r"(?:<!-- (given|not run): ([^>]*) -->\n)?```python\n(.*?)```", re.DOTALL)
#: its blocks are those of tests/networks/toy_family.py, which the matrix of families runs
OF_OTHER_TESTS = {"new_family.md"}


def python_blocks(page):
    """Each Python block of a page: the kind of its mark, the mark's text, the code."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def command_lines(page, program):
    """Each line of the bash blocks of a page that calls a program, with the variables of its block written out."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        text = block.replace("\\\n", " ")
        for name, value in re.findall(r"^(\w+)=(\S+)$", text, flags=re.MULTILINE):
            text = text.replace(f"${name}", value)
        yield from (line for line in text.splitlines() if re.match(program, line))


def page_name(page):
    return page.relative_to(REPOSITORY).as_posix()


def medpruner(*words, cwd):
    command = [sys.executable, "-m", "monai_medpruner", *map(str, words)]
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What pages call ct.nii.gz, out and phantoms20: a phantom, the results of a run, a small benchmark."""
    folder = tmp_path_factory.mktemp("pages")
    medpruner("phantom", "--preset", "small", "--count", 1, "--seed", 7, "--out", "phantoms20", cwd=folder)
    shutil.copy(folder / "phantoms20" / "volumes" / "phantom_000000.nii.gz", folder / "ct.nii.gz")
    question = ("--question", "In which plane was this CT acquired?")
    medpruner(
        "ask", "--bundle", "medpruner_phantom", "--image", "ct.nii.gz", *question, "--output_dir", "out", cwd=folder
    )
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small models for the ids of large ones; the processor of Gemma 3 must know the tokens of an image."""
    gemma3 = tmp_path_factory.mktemp("models") / "gemma3"
    shutil.copytree(MODELS / "gemma3", gemma3)
    (gemma3 / "processor_config.json").write_text('{"image_seq_length": 36, "processor_class": "Gemma3Processor"}')
    return {"google/medgemma-1.5-4b-it": str(gemma3), "Qwen/Qwen3-VL-8B-Instruct": str(MODELS / "video_llama_3")}


def given(name):
    """A value that a page supposes its reader to have."""
    generator = np.random.default_rng(0)
    if name == "slices":
        return [Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(3)]
    assert name == "volume"
    return torch.from_numpy(generator.random((1, 96, 96, 3), dtype=np.float32))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OF_OTHER_TESTS], ids=page_name)
def test_python_of_the_pages(page, request, checkpoints, tmp_path, monkeypatch):
    names: dict[str, object] = {"__name__": "page"}
    for kind, mark, code in python_blocks(page):
        for name, small in checkpoints.items():
            code = code.replace(name, small)
        compiled = compile(code, page_name(page), "exec")
        if kind == "not run":
            continue
        for name in mark.split():
            if name in ("slices", "volume"):
                names[name] = given(name)
                continue
            folder = request.getfixturevalue("files")
            copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
            if not (tmp_path / name).exists():
                copy(folder / name, tmp_path / name)
        monkeypatch.chdir(tmp_path)
        exec(compiled, names)


def test_pages_have_python():
    """The search for blocks finds them."""
    assert sum(len(python_blocks(page)) for page in PAGES) > 6


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CONTRIBUTING.md"], ids=page_name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in map(heading_anchor, headings), target


def heading_anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_medpruner_commands_have_their_options(capsys):
    """Every option of every ``medpruner`` command on the pages is in the help of the command."""
    used: dict[str, set[str]] = {}
    for page in PAGES:
        for line in command_lines(page, "medpruner "):
            words = line.removeprefix("medpruner ").split()
            used.setdefault(words[0], set()).update(re.findall(r"(?<= )--[\w:]+", line))
    assert {"ask", "answers", "phantom", "score", "compare", "sweep"} <= set(used)
    # settings that only one bundle has, such as the family of the phantom models
    own = {f"--{name}" for file in REPOSITORY.glob("bundles/*.json") for name in json.loads(file.read_text("utf-8"))}
    for command, options in used.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = set(re.findall(r"--[\w:]+", capsys.readouterr().out))
        assert {one for one in options if not one.startswith("--token_pruner::")} <= known | own, command


def test_bundle_commands_name_settings_and_files_that_are_there():
    """Every bundle command on the pages: its configurations exist, and know its settings."""
    commands = [line for page in PAGES for line in command_lines(page, r"(python|torchrun) .*monai\.bundle run")]
    assert len(commands) > 4
    own = {"config_file", "standalone", "nproc_per_node"}
    for command in commands:
        (bundle,) = set(re.findall(r"bundles/(\w+)", command))
        parser = ConfigParser()
        files = re.findall(r"configs/\w+\.json", command)
        parser.read_config([REPOSITORY / "bundles" / bundle / file for file in files])
        pruner = (re.findall(r"--pruner (\w+)", command) or [parser["pruner"]])[0]
        for setting in set(re.findall(r" --([\w:]+)", command)) - own:
            assert setting.replace("token_pruner::", f"pruners::{pruner}::") in parser, (setting, command)


def test_the_page_names_every_key_of_a_result_line():
    text = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text.split("| key | content |")[1].split("\n\n")[0]
    keys = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(keys) == sorted(LINE_SCHEMA["properties"])


def script(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_settings_are_up_to_date():
    assert script("settings_page").main(["--check"]) == 0


def test_a_page_of_settings_that_says_something_else(tmp_path, capsys):
    settings = script("settings_page")
    page = tmp_path / "settings.md"
    page.write_text(f"# Settings\n\n{settings.BEGIN}\nold\n{settings.END}\n\nMore.\n", encoding="utf-8")
    assert settings.main(["--check", str(page)]) == 1
    assert "--write" in capsys.readouterr().err
    assert settings.main(["--write", str(page)]) == 0
    assert settings.main(["--check", str(page)]) == 0
    assert page.read_text(encoding="utf-8").endswith("\n\nMore.\n")
    with pytest.raises(ValueError, match="there must be one"):
        settings.up_to_date("no marks")


def test_arguments_of_a_docstring():
    """Several lines become one, a blank line does not end an argument, another section does."""
    docstring = "Sum.\n\nArgs:\n    one: a\n        b.\n    two: see :class:`~.c.Other` | ``x``.\n\nRaises:\n    E: x."
    described = script("settings_page").described_arguments(docstring)
    assert described == {"one": "a b.", "two": "see `Other` \\| `x`."}
