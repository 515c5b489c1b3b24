"""Toy AdaRevDs whose blocks do something: at initialisation every NAFBlock passes its input on unchanged."""

import torch
from torch import Tensor, nn

from bd_diff.baselines.adarevd import AdaRevD

TOY = {"width": 4, "enc_blocks": (1, 1), "layers": (1, 1), "pool_window": None, "tile": 32, "overlap": 8}


def awake(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every parameter that starts at a constant moved away from it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and parameter.std() == 0:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return network


def toy(variant: int = 3, seed: int = 0, **settings) -> AdaRevD:
    torch.manual_seed(seed)
    return awake(AdaRevD(variant, **{**TOY, **settings}), seed).eval()


def noise(*shape: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
