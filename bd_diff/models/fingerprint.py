"""A hash of networks by their tensors, independent of the files they were stored in."""

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn


def fingerprint(*networks: nn.Module) -> str:
    """sha256 of the names, shapes and float32 values of all tensors of the networks, in this order."""
    return fingerprint_of(*(network.state_dict() for network in networks))


def fingerprint_of(*states: Mapping[str, Tensor]) -> str:
    """The fingerprint of state dicts instead of networks."""
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
