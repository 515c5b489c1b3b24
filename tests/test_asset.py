"""The shipped model does what the README says, on the sample photographs."""

import re

import pytest
import torch
from bd_diff_toys import ROOT
from diffusers import DiffusionPipeline

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import SIZE, gaussian, line
from bd_diff.blur.operator import reblur
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.evaluation.metrics import psnr
from bd_diff.restore import load

MODEL, SAMPLES = ROOT / "assets/bd-diff-tiny", ROOT / "assets/samples"


@pytest.fixture(scope="module")
def pipe():
    pipeline = BDDiffPipeline.from_pretrained(MODEL)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(name, folder="sharp"):
    return to_tensor(read_image(SAMPLES / folder / f"{name}.png"))[None]


def test_the_shipped_model_is_small_and_all_safetensors():
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".py"}


def test_sharp_photographs_that_ship_are_large_enough_to_adapt_with_and_none_is_a_sample():
    photographs = list_images(ROOT / "assets/sharp")
    assert all(min(read_image(path).size) >= 256 + SIZE - 1 for path in photographs)
    assert not {path.stem for path in photographs} & {path.stem for path in (SAMPLES / "sharp").iterdir()}


@pytest.mark.parametrize(("name", "gain"), [("gb82_haze", 1.0), ("gb82_sand", 1.5), ("gb82_mies", 3.0)])
def test_sample_photographs_come_back_sharper(pipe, name, gain):
    blurry, sharp = sample(name, "blurry"), sample(name)
    result = pipe(blurry, output_type="pt").images
    assert psnr(result, sharp) > psnr(blurry, sharp) + gain


@pytest.mark.parametrize("name", ["uresnet", "adarevd"])
def test_the_regression_networks_help_with_what_they_were_trained_on_and_leave_sharp_photographs(name):
    restore, sharp = load(ROOT / "assets" / name, device="cpu"), sample("gb82_sand")
    blurry = reblur(sharp, gaussian(torch.tensor([1.8])))
    assert psnr(restore(blurry), sharp) > psnr(blurry, sharp) + 0.5
    assert psnr(restore(sharp), sharp) > 45


# gb82_mies is a weak point: black and white stencils have few soft edges, and are taken for a slightly blurred picture.
@pytest.mark.parametrize(("name", "decibels"), [("gb82_haze", 45), ("gb82_sand", 45), ("gb82_mies", 35)])
def test_a_sharp_photograph_stays_as_it_is(pipe, name, decibels):
    sharp = sample(name)
    assert psnr(pipe(sharp, output_type="pt").images, sharp) > decibels


def test_blur_of_the_right_reference_is_transferred(pipe):
    structure, other = sample("gb82_mies"), sample("gb82_sand")
    soft, moved = gaussian(torch.tensor([2.0])), line(torch.tensor([15.0]), torch.tensor([0.4]))
    wanted = reblur(structure, moved)
    right, wrong = (
        pipe(structure, blur_image=reblur(other, kernel).clamp(0, 1), output_type="pt").images
        for kernel in (moved, soft)
    )
    assert psnr(right, wanted) > psnr(wrong, wanted) + 5


def test_any_pipeline_class_of_diffusers_loads_it_with_trust():
    pipeline = DiffusionPipeline.from_pretrained(MODEL, custom_pipeline="pipeline", trust_remote_code=True)
    assert type(pipeline) is BDDiffPipeline


def test_the_python_of_the_readme_runs_as_printed(tmp_path, monkeypatch):
    program = re.search(r"^## In Python\n.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.M | re.S)[1]
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(program, names)
    assert read_image("sharp.png").size == read_image(SAMPLES / "blurry/gb82_sand.png").size
    assert names["kernel"].shape == (1, 33, 33)


def test_tiles_leave_no_seams(pipe):
    """As a photograph restored whole; steps in flat and evenly rising images would show at once."""
    photograph = to_tensor(read_image(SAMPLES / "blurry/kwentar_180_HONOR-10_M.jpg"))[None, :, :600, :600]
    whole, tiled = (pipe(photograph, tile=tile, fast=True, output_type="pt").images for tile in (0, 384))
    difference = (whole - tiled).abs() * 255
    assert difference.mean() < 1 and difference.max() < 4
    rising = torch.linspace(0.2, 0.8, 512).expand(1, 3, 320, 512)
    for smooth in (rising, torch.full_like(rising, 0.5)):
        whole, tiled = (pipe(smooth, tile=tile, fast=True, output_type="pt").images for tile in (0, 256))
        assert (whole - tiled).abs().max() < 2 / 255


def test_in_bfloat16_it_deblurs_nearly_as_well():
    pipeline = BDDiffPipeline.from_pretrained(MODEL, torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    blurry, sharp = sample("gb82_sand", "blurry"), sample("gb82_sand")
    result = pipeline(blurry, output_type="pt").images
    assert result.dtype == torch.float32
    assert psnr(result, sharp) > psnr(blurry, sharp) + 2.5  # 3.8 in float32
