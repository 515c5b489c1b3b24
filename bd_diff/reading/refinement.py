"""Kernel and picture improve each other, in the light in which the photograph was blurred.

The search imagines the sharp photograph as flat regions with edges. What the UNet makes of it is nearer to the truth,
so least squares on the edges of that give a better kernel, which gives a better picture, and so on (ours; alternating
the two is as old as Xu and Jia, "Two-phase kernel estimation for robust motion deblurring", 2010).

A camera's exposure averages light; its display values, which are no longer proportional to it, were never averaged. A
kernel estimated from these is several times as far from the true one (measured on photographs of the training), and so
is one estimated from light where blur averaged display values, as in many data sets.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.camera import WHITE, to_light
from bd_diff.blur.kernels import centre
from bd_diff.data.pixels import luminance
from bd_diff.models.conditioning import miss, reblurred
from bd_diff.reading.kernel_search import (
    STARTS,
    clean,
    edge_threshold,
    kernel_from_edges,
    reblur_residual,
    search_kernels,
    strong_gradients,
)

BRIGHT, BRIGHT_KEPT = STARTS[:6], (2, 3, 4)  # of the search in linear light, as `STARTS` and `KEPT`
NEAR, ENOUGH = 10, 0.4  # see `unclipped`
DISPLAY, LIT, MOST = -1.0, -0.37, 4  # see `in_their_light` (all: ours, measured on photographs of the training)


def seen(images: Tensor, linear: bool) -> Tensor:
    """The luminance `(B, 1, H, W)` of images `(B, 3, H, W)` in [0, 1]: of their display values, or in linear light."""
    return luminance(to_light(images, "srgb") if linear else images)


def unclipped(windows: Tensor) -> Tensor:
    """Which pixels `(S, 1, h, w)` of windows `(S, 3, h, w)` in [0, 1] are farther than `NEAR` from any that is clipped:
    these were brighter than they are, by how much nobody knows, and so were streaks of them, which are no edges. All
    pixels of windows of which that leaves less than `ENOUGH`, such as printed pages.
    """
    clipped = (windows.amax(1, keepdim=True) > WHITE).float()
    visible = F.max_pool2d(clipped, 2 * NEAR + 1, 1, NEAR) == 0
    return visible | (visible.float().mean((1, 2, 3), keepdim=True) < ENOUGH)


def refine(pipeline, window: Tensor, kernels: Tensor, linear: bool = False) -> Tensor:
    """Better kernels `(S, k, k)` for a window `(1, 3, h, w)` in [0, 1], each in `config.refinements` rounds, from
    display values or `linear` light.

    Settings as in `kernel_search.Start` (ours, measured).
    """
    windows = window.expand(len(kernels), -1, -1, -1)
    lights, visible, size = seen(windows, linear), unclipped(windows) if linear else None, kernels.shape[-1]
    edges, ridge, floor = (kernels.new_full((len(kernels),), value) for value in (30.0 * size, 4.0, 0.05))
    for _ in range(pipeline.config.refinements):
        sharp = seen((pipeline.deblur_window(windows * 2 - 1, kernels) + 1) / 2, linear)
        strongest = strong_gradients(sharp, edge_threshold(sharp, edges, visible), visible)
        kernels = kernel_from_edges(strongest, lights, size, ridge, border=16)
        kernels = centre(clean(kernels.clamp_min(0), floor))
    return kernels


def in_their_light(pipeline, window: Tensor, kernels: Tensor) -> tuple[Tensor, bool]:
    """The kernels `(S, k, k)` to refine for a window `(1, 3, h, w)` in [0, 1], of those that its display values told,
    and whether in linear light.

    Where the best of these is below `DISPLAY` (`in_light`), they stay. Else the search runs in light, too. Where the
    kernel that is best in both is above `LIT`, it is light, and the `MOST` kernels of all that explain it best are
    refined.
    """
    display, light = (seen(window, linear) for linear in (False, True))
    shown = residuals(display, kernels)
    best = kernels[shown.argmin(), None]
    better = in_light(pipeline, window, best)
    if better < DISPLAY:
        return kernels, False
    found = search_kernels(light, BRIGHT, BRIGHT_KEPT, rival=best)
    every = kernels if found is None else torch.cat([kernels, found[0]])
    lit = residuals(light, every)
    if found is not None:
        both = (torch.cat([shown, residuals(display, found[0])]) * lit).argmin()
        better = in_light(pipeline, window, every[both, None])
    if better < LIT:
        return kernels, False
    return every[lit.argsort()[:MOST]], True


def residuals(light: Tensor, kernels: Tensor) -> Tensor:
    """The `reblur_residual` `(S,)` of each of kernels `(S, k, k)` in one luminance `(1, 1, h, w)`."""
    return torch.cat([reblur_residual(light, one) for one in kernels.split(1)])


def in_light(pipeline, window: Tensor, kernel: Tensor) -> float:
    """By how much better a kernel `(1, k, k)`, refined in linear light, explains a window `(1, 3, h, w)` in [0, 1]
    there than one refined in display values does in these: logarithm of the mean squares that the deblurred window,
    blurred again, misses of it.
    """
    pixels, missed = window * 2 - 1, []
    for linear in (False, True):
        refined = refine(pipeline, window, kernel, linear)
        missed.append(miss(reblurred(pipeline.deblur_window(pixels, refined), refined, linear), pixels))
    return float((missed[0] / missed[1]).log())
