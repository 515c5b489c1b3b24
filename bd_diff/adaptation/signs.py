"""Signs of how good a deblurred photograph is, where no sharp twin tells: lower is better in each.

Which of them follow the truth is measured by tests/benches/bench_judge.py; `bd_diff.adaptation.judge` decides by those.
"""

import torch
from torch import Tensor

from bd_diff.blur.camera import to_display, to_light
from bd_diff.blur.operator import reblur
from bd_diff.data.pixels import luminance
from bd_diff.reading.confidence import distances
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import gradients_inside, reblur_residual
from bd_diff.reading.lens import BALANCED


@torch.no_grad()
def unexplained(blurry: Tensor, kernel: Tensor, sparse: float = 0.1) -> float:
    """How badly a kernel `(1, k, k)` explains a photograph `(1, 3, H, W)` in [0, 1]: the logarithm of `reblur_residual`
    of the calmed photograph. It sees the kernel alone.
    """
    return float(reblur_residual(luminance(reduce_noise(blurry)), kernel, sparse).log())


def unlikely(blurry: Tensor, kernel: Tensor) -> float:
    """`unexplained` with more weight on how sparse the kernel makes the estimate, as in `bd_diff.reading.lens`: for
    kernels that differ little.
    """
    return unexplained(blurry, kernel, BALANCED)


@torch.no_grad()
def contradicted(blurry: Tensor, result: Tensor, kernel: Tensor) -> float:
    """How far the result, blurred again, is from the photograph: logarithm of the share of its gradients, blurred in
    display values or in light (sRGB), whichever is nearer.
    """
    shown = (reblur(result, kernel), to_display(reblur(to_light(result, "srgb"), kernel).clamp(0, 1), "srgb"))
    miss = min(float(luminance(one - blurry).abs().mean()) for one in shown)
    return float(torch.tensor(miss / float(gradients_inside(luminance(blurry)).abs().mean().clamp_min(1e-6))).log())


@torch.no_grad()
def unsharp(result: Tensor) -> float:
    """Logarithm of the normalised sparsity l1 / l2 of the gradients (Krishnan et al. 2011): blur, noise and echoes of
    edges all make it larger.
    """
    edges = gradients_inside(luminance(result)).square().sum(1).sqrt()
    return float((edges.mean() / edges.square().mean().sqrt().clamp_min(1e-9)).log())


@torch.no_grad()
def ringing(blurry: Tensor, result: Tensor, reach: int = 9) -> float:
    """Mean overshoot of the result beyond the range of the photograph within `reach` pixels, in levels of 255."""
    light, own = luminance(blurry), luminance(result)
    pool = torch.nn.functional.max_pool2d
    highest, lowest = pool(light, 2 * reach + 1, 1, reach), -pool(-light, 2 * reach + 1, 1, reach)
    return 255 * float(((own - highest).clamp_min(0) + (lowest - own).clamp_min(0)).mean())


@torch.no_grad()
def disagreement(kernel: Tensor, elsewhere: Tensor) -> float:
    """Mean distance of a kernel `(1, k, k)` to those `(S, k, k)` of windows of the same photograph."""
    return float(distances(kernel, elsewhere).mean())


def score(blurry: Tensor, result: Tensor, kernel: Tensor) -> float:
    """What `bd_diff.adaptation.judge` decides by: `unexplained`, which sees the kernel, and `unsharp`, which sees what
    was made of it; logarithms of a share each, so that both weigh the same.
    """
    return unexplained(blurry, kernel) + unsharp(result)
