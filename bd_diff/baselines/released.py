"""Loading checkpoints that other projects published: unwrap, recognise by shape, rename, load strictly."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def read_checkpoint(path: str | Path) -> Mapping:
    """The dictionary in a `.pth` file, read without running any code from it."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file, or one that would run code: many types
        raise ValueError(f"{path} is not a checkpoint of plain tensors; download it again") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a dictionary of tensors")
    return found


def unwrap(state_dict: Mapping) -> dict[str, Tensor]:
    """The tensors of a checkpoint, out of `params`, `params_ema` or `state_dict` and without `module.` in front.

    `params` comes first: it is what the released test scripts load.
    """
    for name in ("params", "params_ema", "state_dict"):
        if isinstance(state_dict.get(name), Mapping):
            state_dict = state_dict[name]
            break
    if not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise ValueError(f"the checkpoint holds more than tensors; its keys start with {[*state_dict][:3]}")
    return {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}


def check_keys(state: Mapping[str, Tensor], keys: Iterable[str], what: str) -> None:
    """Raise ValueError if one of `keys`, which every checkpoint of this kind has, is missing."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f"this is not {what}: it has no {', '.join(missing)}; its keys start with {sorted(state)[:3]}")


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that `pattern`'s group matches at the start of a key; 0 if none matches."""
    found = (re.match(pattern, key) for key in state)
    return max((int(match.group(1)) + 1 for match in found if match), default=0)


def rename(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """`state` with every regular expression of `names` replaced in every key, in order."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in names.items():
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], what: str = "the checkpoint") -> None:
    """Load `state`, which must have exactly the network's keys and shapes; the ValueError says what differs."""
    wanted = network.state_dict()
    shapes = [
        f"{key} is {tuple(state[key].shape)} and should be {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    differences = (
        [f"{key} is missing" for key in wanted if key not in state]
        + [f"{key} is unknown" for key in state if key not in wanted]
        + shapes
    )
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(f"{what} does not fit {type(network).__name__}: {'; '.join(differences[:3])}{more}")
    network.load_state_dict(state)
