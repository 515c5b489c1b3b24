"""The probe tells a model that reads blur from one that ignores it."""

import torch
from diffusers.utils import BaseOutput

from bd_diff.commands.options import load_pipeline
from bd_diff.data.procedural import procedural_image
from bd_diff.models.blur_operator import reblur
from bd_diff.probe import transfer_margin


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
    from bd_diff.evaluate import family_pairs

    kernels = {float(pair.blurry[None].double().sum()): pair.kernel for pair in family_pairs(photographs())}
    for right, wrong in transfer_margin(Oracle(kernels), photographs()).values():
        assert right > 45 and right - wrong > 10
    ignorant = Oracle(dict.fromkeys(kernels, next(iter(kernels.values()))))
    margins = transfer_margin(ignorant, photographs()).values()
    assert abs(sum(right - wrong for right, wrong in margins)) < 1e-3


def test_a_real_pipeline_can_be_probed(tiny_pipeline_folder):
    margins = transfer_margin(load_pipeline(str(tiny_pipeline_folder)).pipeline, photographs(), fast=True)
    assert set(margins) == {"gaussian", "line", "shake"}
