"""The built wheel is all that it takes: it holds model and photographs, and deblurs where no checkout is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from bd_diff_toys import ROOT
from PIL import Image

import bd_diff

SAMPLE = ROOT / "assets/samples/blurry/gb82_haze.png"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the files that belong to it, so that no older build is among them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "bd_diff", source / "bd_diff", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out]
    done = subprocess.run([*build, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of a fresh environment with the wheel; it finds the libraries of this one, and not this checkout."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, symlinks=True)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(pip, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (packages,) = home.rglob("site-packages")
    # A path in a .pth file is searched for modules; the .pth files there, of an editable bd_diff, are not read.
    (packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    return python


@pytest.fixture
def run(installed, tmp_path):
    """Run the fresh Python as a container does: a home that cannot be written, no network, no settings of ours."""

    def run(*arguments):
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "OMP_NUM_THREADS")}
        environment = kept | {"HOME": os.devnull, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [installed, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_wheel_holds_every_file_of_the_package_once_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = sorted(name for name in archive.namelist() if ".dist-info/" not in name)
    there = [path for path in (ROOT / "bd_diff").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert held == sorted(str(path.relative_to(ROOT)).replace(os.sep, "/") for path in there)
    assert wheel.name == f"bd_diff-{bd_diff.__version__}-py3-none-any.whl"


def test_what_ships_is_in_one_place():
    models = [path for path in ROOT.rglob("blur_statistics.safetensors") if not path.parent.is_symlink()]
    assert [path for path in models if ROOT / "bd_diff" in path.parents] == [
        ROOT / "bd_diff/assets/bd-diff-tiny/blur_statistics.safetensors"
    ]
    assert (ROOT / "assets/bd-diff-tiny").resolve() == ROOT / "bd_diff/assets/bd-diff-tiny"
    assert (ROOT / "assets/sharp").resolve() == ROOT / "bd_diff/assets/sharp"


def test_installed_from_the_wheel_it_deblurs_with_a_home_that_cannot_be_written_and_offline(run, tmp_path):
    found = run("-c", "import bd_diff; print(bd_diff.__file__)")
    assert str(ROOT) not in found.stdout, found.stdout
    done = run("-m", "bd_diff", "deblur", SAMPLE, "--out", "haze.png", "--fast")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert Image.open(tmp_path / "haze.png").size == Image.open(SAMPLE).size
    assert (tmp_path / "haze.png").read_bytes() != SAMPLE.read_bytes()


def test_installed_from_the_wheel_it_names_its_version(run):
    done = run("-m", "bd_diff", "--version")
    assert done.stdout.strip() == f"bd-diff {bd_diff.__version__}"
