"""Where a photograph was blurred by a kernel, and where not: turned, that would explain the place as well.

Where a kernel is right, its copies, turned by right angles and mirrored, are wrong, and leave clearly more unexplained.
Where they do not, the place was blurred by something else, such as a thing that moved by itself, or shows nothing;
where they do so nowhere, the kernel is wrong. What a kernel leaves by itself does not tell that: many leave little
(ours).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.kernels import blur
from bd_diff.reading.confidence import distances
from bd_diff.reading.kernel_search import circular_gradients, l0_deblur

CELL, AROUND = 16, 5  # pixels a side of a cell; cells a side that are seen together
FAINT = 1e-6  # mean gradient that nothing is known from: rounding errors in a picture of one colour are less
SMOOTHNESS = 5e-4  # of the L0 deblurring, as in `kernel_search.reblur_residual`
# All that follow: ours, measured on photographs of the training.
UNLIKE = 0.005  # distance from which on a copy is another kernel
SURE = 0.3  # share of the photograph in which a kernel is seen to be right, if it is at all
SUSPECT, RIGHT = 0.925, 0.945  # of what its copies leave there: right kernels leave up to 0.94, wrong ones from 0.92 on


@torch.no_grad()
def unexplained(lights: Tensor, kernel: Tensor) -> Tensor:
    """What a kernel `(1, k, k)` leaves unexplained of the gradients of luminances `(S, 1, H, W)` in [0, 1]: a map
    `(S, 1, h, w)` of cells, each seen with those around it.
    """
    kernels = kernel.expand(len(lights), -1, -1)
    deblurred = l0_deblur(lights, kernels, kernel.new_full((len(lights),), SMOOTHNESS))
    left = circular_gradients(blur(deblurred, kernels) - lights).abs()[..., :-1, :-1].mean(1, keepdim=True)
    cells = F.adaptive_avg_pool2d(left, (lights.shape[-2] // CELL, lights.shape[-1] // CELL))
    return F.avg_pool2d(cells, AROUND, 1, AROUND // 2, count_include_pad=False)


@torch.no_grad()
def against_copies(lights: Tensor, kernel: Tensor) -> Tensor | None:
    """What a kernel `(1, k, k)` leaves `unexplained` of luminances `(S, 1, H, W)` in [0, 1], as a share of what its
    copies leave: a map `(S, 1, h, w)` of cells that is below 1 where the kernel is right; None where all copies are
    like it.
    """
    turned = copies(kernel)
    turned = turned[distances(kernel, turned) > UNLIKE]
    if not len(turned):
        return None
    others = torch.stack([unexplained(lights, one) for one in turned.split(1)])
    return (unexplained(lights, kernel) + FAINT) / (others.mean(0) + FAINT)


def left_where_sure(lights: Tensor, kernel: Tensor) -> float | None:
    """The share `against_copies` that a kernel `(1, k, k)` leaves in the `SURE` part of luminances `(S, 1, H, W)` in
    which it leaves least; None where all copies are like it.
    """
    share = against_copies(lights, kernel)
    return None if share is None else float(share.quantile(SURE))


def copies(kernel: Tensor) -> Tensor:
    """A kernel `(1, k, k)` turned and mirrored, `(7, k, k)`."""
    sides = [(kernel, (1, 2, 3)), (kernel.mT, (0, 1, 2, 3))]
    return torch.cat([one.rot90(turns, (1, 2)) for one, every in sides for turns in every])
