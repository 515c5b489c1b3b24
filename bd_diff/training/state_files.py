"""Nested state of optimizers, averages and schedules as one safetensors file: tensors beside JSON, nothing pickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

LAYOUT = "layout"  # key of the JSON in the file's header


def save_state(state: Any, path: Path) -> None:
    """Write mappings, lists, tuples, tensors, text, numbers, booleans and None. Raises TypeError for anything else."""
    tensors: dict[str, Tensor] = {}
    layout = json.dumps(described(state, tensors))
    save_file(tensors, path, {LAYOUT: layout})


def load_state(path: Path) -> Any:
    """What `save_state` wrote, tensors on the CPU. Raises ValueError naming a file that is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return rebuilt(json.loads((file.metadata() or {})[LAYOUT]), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is missing or damaged ({' '.join(str(error).split())})") from error


def described(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The JSON form of a value; its tensors are put into `tensors` and referred to by their names."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()  # a copy: files hold no shared memory
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"mapping": [[plain(key), described(one, tensors)] for key, one in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [described(one, tensors) for one in value]}
    return plain(value)


def plain(value: Any) -> Any:
    """A value in a form that JSON returns unchanged, to the last bit."""
    if value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(f"state of type {type(value).__name__} cannot be saved")
    return value


def rebuilt(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `described`."""
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "tensor":
        return tensors[inside]
    if kind == "mapping":
        return {key: rebuilt(one, tensors) for key, one in inside}
    return {"list": list, "tuple": tuple}[kind](rebuilt(one, tensors) for one in inside)


def same_layout(first: Any, second: Any) -> bool:
    """Whether two states hold tensors of the same shapes, and values of the same kinds, at the same places."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_layout(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same_layout, first, second))
    return not isinstance(first, (Tensor, Mapping, list, tuple)) and not isinstance(
        second, (Tensor, Mapping, list, tuple)
    )
