"""Where in a picture: codes that image features carry and the UNet's positions ask by, whatever their resolutions."""

import math

import torch
from torch import Tensor

OCTAVES = 4  # frequencies a side: half a wave over the picture, one, two, four


def position_codes(height: int, width: int, device=None) -> Tensor:
    """Fourier features `(H * W, 4 * OCTAVES)` of the middles of a grid's cells, their place in the picture in [0, 1]
    (Vaswani et al. 2017, section 3.5, in two dimensions).
    """

    def waves(side: int) -> Tensor:
        place = (torch.arange(side, device=device) + 0.5) / side
        phase = math.pi * place[:, None] * 2.0 ** torch.arange(OCTAVES, device=device)
        return torch.cat([phase.sin(), phase.cos()], 1)  # (side, 2 * OCTAVES)

    rows, columns = waves(height)[:, None], waves(width)[None]
    return torch.cat([rows.expand(height, width, -1), columns.expand(height, width, -1)], -1).flatten(0, 1)
