"""The recipes of the guide do what they say, exactly as they are printed and one after the other."""

import os
import re
import shlex
import subprocess

import pytest
from bd_diff_toys import ROOT
from PIL import Image

LEFT_BEHIND = {  # files of each recipe that a reader would look for
    "One photograph": ["sand-sharp.png", "sand-kernel.png"],
    "A folder": ["holiday-sharp/beach.webp", "holiday-sharp/day two/harbour.webp"],
    "Adapt to your camera": ["adapted/report.json", "phone-sharp/0.png", "phone-sharp/1.png"],
    "Paired data by blur transfer": ["pairs/blurry/0.png", "pairs/sharp/1.png"],
    "Compare methods": ["cards/input/card.json", "cards/bd-diff/report.html"],
    "Use it in diffusers": ["haze.png", "my-pipeline/model_index.json"],
}


def recipes():
    """(title, language, code) of every block in the section called Recipes."""
    section = re.search(r"^## Recipes\n(.*?)(?=^## |\Z)", (ROOT / "assets/docs/guide.md").read_text(), re.M | re.S)
    block = r"^### (.+?)\n(?:(?!###).)*?```(sh|python)\n(.*?)```"
    found = re.findall(block, section[1] if section else "", re.M | re.S)
    return [pytest.param(*recipe, id=recipe[0]) for recipe in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory, warm_python):
    """A reader's folder: the repository's assets, a phone's photographs, sharp ones, a holiday."""
    home = tmp_path_factory.mktemp("reader")
    (home / "bin").mkdir()
    (home / "bin" / "bd-diff").write_text(f'#!/bin/sh\nexec {shlex.join(warm_python)} -m bd_diff "$@"\n')
    (home / "bin" / "bd-diff").chmod(0o755)
    (home / "assets").symlink_to(ROOT / "assets")
    samples = ROOT / "assets" / "samples"
    places = {
        "blurry/gb82_sand": ["phone/0.png", "holiday/beach.jpg"],
        "blurry/gb82_haze": ["phone/1.png", "holiday/day two/harbour.png"],
        "sharp/gb82_sand": ["sharp/0.png"],
        "sharp/gb82_mies": ["sharp/1.png"],
    }
    for name, copies in places.items():
        for copy in copies:
            (home / copy).parent.mkdir(parents=True, exist_ok=True)
            Image.open(samples / f"{name}.png").convert("RGB").crop((0, 0, 160, 160)).save(home / copy)
    return home


def test_every_recipe_is_found():
    assert [recipe.id for recipe in recipes()] == list(LEFT_BEHIND)


@pytest.mark.parametrize("title, language, code", recipes())
def test_a_recipe_works_as_printed(home, warm_python, title, language, code):
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-e", "-c", code] if language == "sh" else [*warm_python, "-c", code]
    done = subprocess.run(command, cwd=home, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in LEFT_BEHIND[title]:
        assert (home / name).exists(), f"{title} left no {name}: {done.stdout}"
