"""The probe tells a model that reads blur from one that ignores it."""

import json

import torch
from diffusers.utils import BaseOutput
from typer.testing import CliRunner

from bd_diff.blur.operator import reblur
from bd_diff.cli import app
from bd_diff.commands.options import load_pipeline
from bd_diff.data.images import read_image, save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.probe import transfer_margin


def photographs():
    return [procedural_image(96, torch.Generator().manual_seed(seed), "edges") for seed in range(2)]


class Oracle:
    """Transfers with the true kernel, which it knows by the reference it is shown."""

    def __init__(self, kernels):
        self.kernels = kernels

    def __call__(self, image, blur_image, **_):
        kernel = self.kernels[float(blur_image.double().sum())]
        return BaseOutput(images=reblur(image, kernel[None]))


def test_the_true_kernel_has_a_large_margin_and_ignoring_blur_none():
    from bd_diff.evaluation.evaluate import family_pairs

    kernels = {float(pair.blurry[None].double().sum()): pair.kernel for pair in family_pairs(photographs())}
    for right, wrong in transfer_margin(Oracle(kernels), photographs()).values():
        assert right > 45 and right - wrong > 10
    ignorant = Oracle(dict.fromkeys(kernels, next(iter(kernels.values()))))
    margins = transfer_margin(ignorant, photographs()).values()
    assert abs(sum(right - wrong for right, wrong in margins)) < 1e-3


def test_a_real_pipeline_can_be_probed(tiny_pipeline_folder):
    margins = transfer_margin(load_pipeline(str(tiny_pipeline_folder)).pipeline, photographs(), fast=True)
    assert set(margins) == {"gaussian", "line", "shake"}


def test_the_command_writes_figures_and_a_picture(tiny_pipeline_folder, tmp_path):
    for index, one in enumerate([*photographs(), procedural_image(96, torch.Generator().manual_seed(9), "edges")]):
        save_image(to_image(one), tmp_path / f"photographs/{index}.png")
    words = ["--data", tmp_path / "photographs", "--fast", "--samples", 30, "--model", tiny_pipeline_folder]
    result = CliRunner().invoke(
        app, ["probe", *map(str, words), "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert result.exit_code == 0
    figures = json.loads((tmp_path / "out/probe.json").read_text())
    assert set(figures) == {"probes", "structure", "swap", "tokens", "map", "transfer"}
    assert -1 <= figures["map"]["shake"] <= 1
    assert read_image(tmp_path / "out/probe.png").width > 6 * 200
