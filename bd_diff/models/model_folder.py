"""A model folder in the layout of diffusers, checked so that a damaged file is named and never half loaded.

The folder is not trusted: nothing in it is unpickled or imported, and a configuration cannot ask for networks many
times as large as the weights.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from bd_diff.assets import asset

SHIPPED = "bd-diff-tiny"
ADVICE = "download or copy the model again"
ADAPTER = "adapter.json"  # in a folder that holds only what training adds to a base, see stable_diffusion/adapters.py
HARMLESS = ["*.json", "*.safetensors", "*.md"]  # all that a model needs of a repository of the hub
ALIGNED = 64  # bytes
LARGEST_JSON = 2**26  # bytes
LARGEST_NUMBER = 2**16  # in a configuration, where no tensor has a longer side
FLOATS = {"F64", "F32", "F16", "BF16"}
WHOLE = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
SETTINGS = {  # of a pipeline: type, lowest and highest value
    "default_steps": (int, 1, 10_000),
    "most_steps": (int, 0, 10_000),
    "refinements": (int, 0, 100),
    "tile": (int, 0, LARGEST_NUMBER),
    "caution": (float, 0, 1),
    "residual": (bool, False, True),
    "search": (bool, False, True),
    "linear_light": (bool, False, True),
}

Network = TypeVar("Network", bound=nn.Module)


def find_folder(folder_or_id: str | Path) -> Path:
    """The folder itself, or where the Hugging Face hub's client keeps the model of this id (`name/model`).

    "bd-diff-tiny" is the model that ships, where no folder has that name.
    """
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    if str(folder_or_id) == SHIPPED:
        return asset(SHIPPED)
    if folder.exists() or folder.is_absolute() or str(folder_or_id).startswith(".") or len(folder.parts) != 2:
        raise ValueError(
            f"{folder_or_id} is not a model folder; give a folder with a model_index.json or a config.json"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder_or_id), allow_patterns=HARMLESS))
    except Exception as error:  # no network, no such model, no permission: each has its own class there
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder_or_id} is neither a folder nor a model the hub gives: {reason}") from error


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter instead of a whole model."""
    return (Path(folder) / ADAPTER).exists()


def load_checked(cls: Any, folder: Path, **settings):
    """`cls.from_pretrained(folder)` of a network or pipeline; files are checked before, tensors after.

    Raises `ValueError` naming the file or the tensor that is missing, damaged or does not fit.
    """
    networks = check_files(folder)
    stored = [shape for network in networks for shape, _ in headers(network).values()]
    try:
        with no_more_than(len(stored), sum(map(math.prod, stored))):
            model = cls.from_pretrained(folder, use_safetensors=True, **settings)
    except Exception as error:  # sizes, names or types that do not fit the configuration: constructors raise anything
        raise ValueError(f"{folder} cannot be loaded: {str(error).strip().split('. ')[0]}; {ADVICE}") from error
    components = {".": model} if isinstance(model, nn.Module) else model.components
    for name, component in components.items():
        if isinstance(component, ModelMixin):
            check_network(align(component), folder / name)
    return model


def align(network: Network) -> Network:
    """Move the weights of a network, in place, to addresses that are multiples of `ALIGNED`, as those of new networks.

    Those that are mapped from a file lie as they lie there, and some processors sum the same numbers in another order
    then, so that a saved network would give other results in the last bits.
    """
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.data_ptr() % ALIGNED:
            tensor.data = tensor.data.clone()
    return network


@contextmanager
def no_more_than(tensors: int, numbers: int, spare: int = 2**28) -> Iterator[None]:
    """Context in which networks may have at most about four times so many tensors and numbers.

    A margin is added, as constructors replace parts of others. Raises ValueError at the first parameter beyond, so that
    no time is lost on building blocks without weights.
    """
    left = [4 * tensors + 4000, 4 * numbers + spare]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            left[0] -= 1
            left[1] -= parameter.numel()
            if min(left) < 0:
                raise ValueError("its configuration describes a network many times as large as its weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def read_json(path: Path, advice: str = ADVICE) -> dict:
    """The object in a JSON file; a missing or damaged one, or anything else in it, is a `ValueError` naming it."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise ValueError("it is no file")
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
        return found
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {advice}") from None
    except RecursionError:
        raise ValueError(f"{path} is damaged (nested too deeply); {advice}") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {advice}") from None


def check_files(folder: Path) -> list[Path]:
    """The folders of the networks of a model.

    Raises `ValueError` naming the first file that is missing or damaged, or that holds what no model of this project
    does.
    """
    for config in sorted(folder.rglob("*.json")):
        read_json(config)
    networks = [folder]
    if (folder / "model_index.json").exists():
        index = folder / "model_index.json"
        described = read_json(index)
        check_settings(index, described)
        components = {
            name: entry for name, entry in described.items() if isinstance(entry, list) and entry[:1] != [None]
        }
        for name, entry in components.items():
            if not (len(entry) == 2 and all(isinstance(one, str) for one in entry) and is_ours(entry[0])):
                raise ValueError(f"{index}: {name} is {entry}, which is neither of diffusers nor of bd_diff; {ADVICE}")
            configs = list((folder / name).glob("*config.json"))
            if not configs:
                raise ValueError(f"{folder / name / 'config.json'} is missing; {ADVICE}")
            for config in configs:
                check_numbers(config, read_json(config), LARGEST_NUMBER)
        networks = [folder / name for name in components if (folder / name / "config.json").exists()]
    for network in networks:
        check_version(network)
        weight_files(network)
        longest = max((side for shape, _ in headers(network).values() for side in shape), default=0)
        check_numbers(network / "config.json", read_json(network / "config.json"), max(longest, LARGEST_NUMBER))
    return networks


def check_version(network: Path) -> None:
    """Raise `ValueError` for a network that only earlier versions load."""
    config = read_json(network / "config.json")
    if config.get("_class_name") == "BlurDecoder" and "num_tokens" in config:
        raise ValueError(
            f"{network} is of bd-diff 0.2.0 or before, whose blur tokens were others; use it with that version, or "
            "train or adapt again"
        )


def is_ours(library: str) -> bool:
    """Whether a class of this library may be imported because a model folder names it."""
    return library == "diffusers" or library.split(".")[0] == "bd_diff"


def check_settings(index: Path, described: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a setting of a pipeline has a wrong type or is out of bounds."""
    for name, (kind, low, high) in SETTINGS.items():
        value = described.get(name, low)
        right = type(value) in (int, float) if kind is float else type(value) is kind
        if not (right and low <= value <= high):
            raise ValueError(f"{index}: {name} is {value!r}; expected {kind.__name__} from {low} to {high}; {ADVICE}")


def check_numbers(path: Path, config: Mapping[str, Any], most: int) -> None:
    """Raise `ValueError` for a number in a configuration that is not finite, and for a whole number above `most`."""
    left = list(config.items())
    while left:
        key, value = left.pop()
        if isinstance(value, (dict, list)):
            left += value.items() if isinstance(value, dict) else ((key, inside) for inside in value)
        elif isinstance(value, float) and not math.isfinite(value) or isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{path}: {key} is {value:.6g}, which no network has; {ADVICE}")


def weight_files(folder: Path) -> list[Path]:
    """The .safetensors files that diffusers loads for the network of a folder.

    Raises `ValueError` if one is missing, if there is none, and if the name of one leads out of the folder.
    """
    names = []
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
            raise ValueError(f"{index} is damaged (it has no weight_map of names to files); {ADVICE}")
        names += sorted(set(places.values()))
    names += [f"{name}{kind}.safetensors" for name in ("diffusion_pytorch_model", "model") for kind in ("", ".fp16")]
    for name in names[:-4]:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{folder}: {name!r} is no name of a .safetensors file in that folder; {ADVICE}")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; {ADVICE}")
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder} holds no .safetensors file called diffusion_pytorch_model; {ADVICE}")
    return found


def headers(folder: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor in the .safetensors files of a network."""
    return {name: header for path in weight_files(folder) for name, header in tensor_headers(path).items()}


def tensor_headers(path: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor in a file, whose length must be the one that its header gives."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: (one.get_shape(), one.get_dtype()) for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from None
    for name, (_, kind) in found.items():
        if kind not in FLOATS | WHOLE:
            raise ValueError(f"{path}: the tensor {name} is of type {kind}, which no model of ours has; {ADVICE}")
    return found


def check_network(network: nn.Module, folder: Path) -> None:
    """Raise `ValueError` naming a tensor that only one of `folder` and its loaded network has, or that holds NaN."""
    stored = {name: (path, kind) for path in weight_files(folder) for name, (_, kind) in tensor_headers(path).items()}
    wanted = network.state_dict()
    if extra := [name for name in stored if name not in wanted]:
        what = f"{type(network).__name__} as config.json describes it"
        raise ValueError(f"{stored[extra[0]][0]} holds the tensor {extra[0]}, which {what} does not have; {ADVICE}")
    for name, tensor in wanted.items():
        if name not in stored:
            raise ValueError(f"{folder} lacks the tensor {name}; {ADVICE}")
        path, kind = stored[name]
        if tensor.is_floating_point() and kind not in FLOATS:
            raise ValueError(f"{path}: the tensor {name} is of type {kind}, not floating point; {ADVICE}")
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: the tensor {name} holds NaN or infinite values; {ADVICE}")
