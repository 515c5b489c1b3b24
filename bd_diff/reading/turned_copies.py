"""Where a photograph was blurred by its kernel, and where not: turned, that would explain the place as well.

Where a kernel is right, its copies, turned by right angles and mirrored, are wrong, and leave clearly more unexplained.
Where they do not, the place was blurred by something else, such as a thing that moved by itself, or shows nothing. No
shake is so symmetric that none of its copies is unlike it (ours).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.kernels import blur
from bd_diff.reading.confidence import NONE, distances
from bd_diff.reading.kernel_search import circular_gradients, l0_deblur

CELL, AROUND = 16, 5  # pixels a side of a cell; cells a side that are seen together
UNLIKE = 0.005  # distance from which on a copy is another kernel
SMOOTHNESS = 5e-4  # of the L0 deblurring, as in `kernel_search.reblur_residual`


@torch.no_grad()
def unexplained(light: Tensor, kernel: Tensor) -> Tensor:
    """What a kernel `(1, k, k)` leaves unexplained of the gradients of a luminance `(1, 1, H, W)` in [0, 1]: a map
    `(1, 1, h, w)` of cells, each seen with those around it.
    """
    deblurred = l0_deblur(light, kernel, kernel.new_full((1,), SMOOTHNESS))
    left = circular_gradients(blur(deblurred, kernel) - light).abs()[..., :-1, :-1].mean(1, keepdim=True)
    cells = F.adaptive_avg_pool2d(left, (light.shape[-2] // CELL, light.shape[-1] // CELL))
    return F.avg_pool2d(cells, AROUND, 1, AROUND // 2, count_include_pad=False)


@torch.no_grad()
def against_copies(light: Tensor, kernel: Tensor) -> Tensor | None:
    """What a kernel `(1, k, k)` leaves `unexplained`, as a share of what its copies leave: a map `(1, 1, h, w)` of
    cells that is below 1 where the kernel is right; None where all copies are like it.
    """
    turned = copies(kernel)
    turned = turned[distances(kernel, turned) > UNLIKE]
    if not len(turned):
        return None
    others = torch.stack([unexplained(light, one) for one in turned.split(1)])
    return unexplained(light, kernel) / others.mean(0).clamp_min(NONE)


def copies(kernel: Tensor) -> Tensor:
    """A kernel `(1, k, k)` turned and mirrored, `(7, k, k)`."""
    sides = [(kernel, (1, 2, 3)), (kernel.mT, (0, 1, 2, 3))]
    return torch.cat([one.rot90(turns, (1, 2)) for one, every in sides for turns in every])
