"""Kernel and picture improve each other, in the light in which the photograph was blurred.

The search imagines the sharp photograph as flat regions with edges. What the UNet makes of it is nearer to the truth,
so least squares on the edges of that give a better kernel, which gives a better picture, and so on (ours; alternating
the two is as old as Xu and Jia, "Two-phase kernel estimation for robust motion deblurring", 2010).

A camera's exposure averages light; its display values, which are no longer proportional to it, were never averaged. A
kernel estimated from these is several times as far from the true one (measured on photographs of the training), and so
is one estimated from light where blur averaged display values, as in many data sets.
"""

from collections.abc import Mapping

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
DISPLAY, LIT, MOST = -1.0, -0.37, 4  # see `refine_in_their_light` (all: ours, measured on photographs of the training)


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


def refine(
    pipeline,
    window: Tensor,
    kernels: Tensor,
    linear: bool = False,
    deblurred: Tensor | None = None,
    where: Tensor | None = None,
) -> Tensor:
    """Better kernels `(S, k, k)` for a window `(1, 3, h, w)` in [0, 1], each in `config.refinements` rounds, from
    display values or `linear` light. deblurred: the window by each of the kernels, in [-1, 1], where that is known.
    where: which pixels `(1, 1, h, w)` tell of them; all, if it is None.

    Settings as in `kernel_search.Start` (ours, measured).
    """
    windows = window.expand(len(kernels), -1, -1, -1)
    lights, visible, size = seen(windows, linear), unclipped(windows) if linear else None, kernels.shape[-1]
    if where is not None:
        visible = where.expand_as(lights) if visible is None else where & visible
    edges, ridge, floor = (kernels.new_full((len(kernels),), value) for value in (30.0 * size, 4.0, 0.05))
    for _ in range(pipeline.config.refinements):
        made = pipeline.deblur_window(windows * 2 - 1, kernels) if deblurred is None else deblurred
        sharp, deblurred = seen((made + 1) / 2, linear), None
        strongest = strong_gradients(sharp, edge_threshold(sharp, edges, visible), visible)
        kernels = kernel_from_edges(strongest, lights, size, ridge, border=16)
        kernels = centre(clean(kernels.clamp_min(0), floor))
    return kernels


def refine_in_their_light(pipeline, window: Tensor, kernels: Tensor) -> tuple[Tensor, bool]:
    """Better kernels (`refine`) for a window `(1, 3, h, w)` in [0, 1], from those `(S, k, k)` that its display values
    told, and whether in linear light.

    Where the best of these is below `DISPLAY` (`in_both`), it is display values. Else the search runs in light, too.
    Where the kernel that is best in both is above `LIT`, it is light, and of all kernels the `MOST` that explain it
    best are refined.
    """
    display, light = (seen(window, linear) for linear in (False, True))
    shown = residuals(display, kernels)
    best = int(shown.argmin())
    better, shown_best, lit_best = in_both(pipeline, window, kernels[best, None])
    if better >= DISPLAY:
        found = search_kernels(light, BRIGHT, BRIGHT_KEPT, rival=kernels[best, None])
        every = kernels if found is None else torch.cat([kernels, found[0]])
        lit, both = residuals(light, every), best
        if found is not None:
            both = int((torch.cat([shown, residuals(display, found[0])]) * lit).argmin())
        if both != best:
            better, _, lit_best = in_both(pipeline, window, every[both, None])
        if better >= LIT:
            nearest = lit.argsort()[:MOST].tolist()
            known = {nearest.index(both): lit_best} if both in nearest else {}
            return refine_others(pipeline, window, every[nearest], known, True), True
    return refine_others(pipeline, window, kernels, {best: shown_best}, False), False


def refine_others(pipeline, window: Tensor, kernels: Tensor, known: Mapping[int, Tensor], linear: bool) -> Tensor:
    """`refine` of kernels of which some, by their indices, are `known` already, `(1, k, k)` each."""
    rest = [index for index in range(len(kernels)) if index not in known]
    refined = refine(pipeline, window, kernels[rest], linear).split(1) if rest else ()
    made = dict(known) | dict(zip(rest, refined, strict=True))
    return torch.cat([made[index] for index in range(len(kernels))])


def residuals(light: Tensor, kernels: Tensor) -> Tensor:
    """The `reblur_residual` `(S,)` of each of kernels `(S, k, k)` in one luminance `(1, 1, h, w)`."""
    return torch.cat([reblur_residual(light, one) for one in kernels.split(1)])


def in_both(pipeline, window: Tensor, kernel: Tensor) -> tuple[float, Tensor, Tensor]:
    """A kernel `(1, k, k)` refined for a window `(1, 3, h, w)` in [0, 1] in display values and in linear light, two of
    that shape, after the number that tells by how much better the second explains the window in light than the first
    does in display values: logarithm of the mean squares that the deblurred window, blurred again, misses of it.
    """
    pixels, missed, kernels = window * 2 - 1, [], []
    deblurred = pipeline.deblur_window(pixels, kernel)
    for linear in (False, True):
        kernels.append(refine(pipeline, window, kernel, linear, deblurred))
        again = reblurred(pipeline.deblur_window(pixels, kernels[-1]), kernels[-1], linear)
        missed.append(miss(again, pixels))
    return float((missed[0] / missed[1]).log()), kernels[0], kernels[1]
