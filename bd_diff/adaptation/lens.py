"""The one kernel of a lens, from all photographs of a folder together.

A shake differs from photograph to photograph, but a lens blurs all of them alike. What one photograph tells of its
kernel is ambiguous; the edges of many, in one least squares, leave little doubt, and ask for no family of blurs.
"""

import torch
from torch import Tensor

from bd_diff.blur.kernels import centre, normalize
from bd_diff.data.pixels import luminance
from bd_diff.reading.confidence import distances
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import (
    GROWTH,
    best_window,
    edge_threshold,
    kernel_from_edges,
    l0_deblur,
    reblur_residual,
    strong_gradients,
)

LEAST, MOST = 4, 16  # photographs: fewer tell nothing of what they share, more are not looked at
SIDE = 256  # pixels a side of the window of each
ALIKE = 0.008  # of `unlikeness`, below which a folder looks like one lens (ours, measured on made domains)
ROUNDS = 10
SMOOTHNESS = 2e-3, 2e-4  # of the L0 deblurring, in the first round and in the last one (ours)
EDGES, RIDGE, FLOOR = 30.0, 4.0, 0.004  # edges a pixel of the kernel's side; the floor is a share of the maximum (ours)


def windows_of(photographs: list[Tensor]) -> Tensor:
    """The windows with most edges, calmed, `(N, 3, h, w)` in [0, 1], of photographs `(1, 3, H, W)` in [0, 1]."""
    side = min(SIDE, *(side for one in photographs for side in one.shape[-2:]))
    return torch.cat([reduce_noise(one[best_window(luminance(one), side)]) for one in photographs])


@torch.no_grad()
def shared_kernel(photographs: list[Tensor], start: Tensor) -> Tensor:
    """The kernel `(1, k, k)` of photographs `(1, 3, H, W)` in [0, 1] that explains them together.

    start: kernels `(N, k, k)` that were read in them. In rounds, edges of the L0 deblurring with the kernel give the
    next kernel (as `bd_diff.reading.kernel_search` does for one photograph).
    """
    lights = luminance(windows_of(photographs[:MOST]))
    count, size = len(lights), start.shape[-1]
    kernel = centre(normalize(start.mean(0, keepdim=True)))
    first = kernel
    for step in range(ROUNDS):
        share = step / (ROUNDS - 1)
        smoothness = SMOOTHNESS[0] ** (1 - share) * SMOOTHNESS[1] ** share
        sharp = l0_deblur(
            lights, kernel.expand(count, -1, -1), lights.new_full((count,), smoothness), until=1e3, growth=GROWTH
        )
        edges = strong_gradients(sharp, edge_threshold(sharp, lights.new_full((count,), EDGES * size)))
        # As the gradients of one picture with many channels: all across, then all down.
        together = edges.transpose(0, 1).flatten(0, 1)[None]
        kernel = kernel_from_edges(together, lights.transpose(0, 1), size, lights.new_full((1,), RIDGE), border=16)
        kernel = kernel.clamp_min(0)
        kernel = centre(normalize(kernel * (kernel >= FLOOR * kernel.amax())))
    return min((first, kernel), key=lambda one: unexplained(lights, one))


def unexplained(lights: Tensor, kernel: Tensor) -> float:
    """Mean logarithm of the `reblur_residual` of windows `(N, 1, h, w)` under one kernel `(1, k, k)`."""
    return float(reblur_residual(lights, kernel.expand(len(lights), -1, -1)).log().mean())


@torch.no_grad()
def unlikeness(kernels: Tensor) -> float:
    """Mean distance of kernels `(N, k, k)` to their mean: about 0.003 in made domains of one lens, 0.013 in photographs
    each out of focus by another distance, from 0.06 on where cameras moved.
    """
    return float(distances(kernels.mean(0, keepdim=True), kernels).mean())
