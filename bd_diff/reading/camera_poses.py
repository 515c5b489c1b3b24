"""One path of camera poses for all windows of a photograph: shifts and turns, each with the time that it took.

A camera that also turns blurs every place otherwise, but all places see the same poses (Whyte et al., "Non-uniform
deblurring for shaken images", 2012; Hirsch et al., "Fast removal of non-uniform camera shake", 2011). A window's noise
is averaged out, and kernels are known where a window shows no edges.
"""

import math

import torch
from torch import Tensor

from bd_diff.blur.kernels import normalize, transfer_function
from bd_diff.reading.kernel_search import around_zero_lag, normal_equations

TURNS = 9  # angles
FARTHEST = 8.0  # pixels by which the largest of them moves the middle of the farther edge
RIDGE, FLOOR, BORDER = 4.0, 0.05, 16  # as in `differing_blur.Windows.refined`
ROUNDS = 20  # of accelerated projected gradient descent


@torch.no_grad()
def pose_kernels(edges: Tensor, lights: Tensor, start: Tensor, places: Tensor) -> Tensor:
    """Kernels `(S, k, k)` of windows, all of one set of poses, by non-negative least squares.

        argmin_{w >= 0} sum_s |edges_s * K_s - gradients(lights_s)|^2 + RIDGE |K_s|^2,
        K_s = sum over angles of w_angle, moved by angle * (right_s, -down_s)

    edges: strong gradients `(S, 2, h, w)` of the sharp windows. lights: the blurry windows `(S, 1, h, w)`. start: the
        kernel `(1, k, k)` of a camera that does not turn. places: where the windows lie, down and right of the middle
        of the photograph `(S, 2)`, 1 at the farther edge.
    """
    size, reach = start.shape[-1], start.shape[-1] // 2
    right, spectrum = normal_equations(edges, lights, size, BORDER)
    power, span = spectrum.real, spectrum.shape[1]
    angles = torch.linspace(-FARTHEST, FARTHEST, TURNS, device=start.device)
    moves = angles[:, None] * torch.stack([places[:, 1], -places[:, 0]], 1)[:, None]  # (S, A, 2)
    phases = shifts(moves, span)  # (S, A, span, span // 2 + 1)

    def seen(weights: Tensor) -> Tensor:
        """Kernels of the windows from the weights of poses `(A, k, k)`."""
        return cropped((transfer_function(weights, span, span) * phases).sum(1), reach)

    def uphill(weights: Tensor, target: Tensor | float) -> Tensor:
        kernels = seen(weights)
        missed = cropped(transfer_function(kernels, span, span) * power, reach) - target + RIDGE * kernels
        return cropped((transfer_function(missed, span, span)[:, None] * phases.conj()).sum(0), reach)

    steepest = torch.ones(TURNS, size, size, device=start.device)
    for _ in range(6):  # the largest curvature, by the power method
        steepest = uphill(steepest / steepest.norm(), 0.0)
    curvature = 1.1 * steepest.norm()
    weights = torch.zeros_like(steepest)
    weights[TURNS // 2] = start[0]
    ahead, pace = weights, 1.0
    for _ in range(ROUNDS):
        last, weights = weights, (ahead - uphill(ahead, right) / curvature).clamp_min(0)
        before, pace = pace, (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = weights + (before - 1) / pace * (weights - last)
    kernels = seen(weights).clamp_min(0)
    return normalize(kernels * (kernels >= FLOOR * kernels.amax((1, 2), keepdim=True)))


def shifts(moves: Tensor, span: int) -> Tensor:
    """Factors `(..., span, span // 2 + 1)` that move an image of `span` pixels down and right by `moves` `(..., 2)`."""
    rows = torch.fft.fftfreq(span, device=moves.device)[:, None]
    columns = torch.fft.rfftfreq(span, device=moves.device)
    turns = -2 * math.pi * (moves[..., 0, None, None] * rows + moves[..., 1, None, None] * columns)
    return torch.polar(torch.ones_like(turns), turns)


def cropped(spectra: Tensor, reach: int) -> Tensor:
    """The middles `(n, 2 reach + 1, 2 reach + 1)` of images with these half spectra, whose origin is their middle."""
    return around_zero_lag(torch.fft.irfft2(spectra, s=(spectra.shape[-2],) * 2), reach)
