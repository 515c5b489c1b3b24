"""A model folder in the layout of diffusers, checked so that a damaged file is named and never half loaded."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import nn

ADVICE = "download or copy the model again"
ADAPTER = "adapter.json"  # in a folder that holds only what training adds to a base, see stable_diffusion/adapters.py


def find_folder(folder_or_id: str | Path) -> Path:
    """The folder itself, or where the Hugging Face hub's client keeps the model of this id (`name/model`)."""
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    if folder.exists() or folder.is_absolute() or str(folder_or_id).startswith(".") or len(folder.parts) != 2:
        raise ValueError(
            f"{folder_or_id} is not a model folder; give a folder with a model_index.json or a config.json"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder_or_id), ignore_patterns=["*.bin", "*.ckpt", "*.pth"]))
    except Exception as error:  # no network, no such model, no permission: each has its own class there
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder_or_id} is neither a folder nor a model the hub gives: {reason}") from error


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter instead of a whole model."""
    return (Path(folder) / ADAPTER).exists()


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` once all is written."""
    folder = Path(folder)
    temporary = folder.with_name(folder.name + "-saving")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def load_checked(cls: Any, folder: Path, **settings):
    """`cls.from_pretrained(folder)` of a network or pipeline, after its files and before its tensors are checked.

    Raises `ValueError` naming the file, or the tensor, that is missing, damaged or does not fit.
    """
    check_files(folder)
    try:
        model = cls.from_pretrained(folder, **settings)
    except (ValueError, TypeError, RuntimeError, OSError) as error:  # sizes or names that do not fit the configuration
        raise ValueError(f"{folder} cannot be loaded: {str(error).strip().split('. ')[0]}; {ADVICE}") from error
    components = {".": model} if isinstance(model, nn.Module) else model.components
    for name, component in components.items():
        if isinstance(component, ModelMixin):
            check_network(component, folder / name)
    return model


def read_json(path: Path) -> dict:
    """A JSON file of a model folder; a missing or damaged one is a `ValueError` naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {ADVICE}") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from None


def check_files(folder: Path) -> None:
    """Raise `ValueError` naming the first file of a model folder that is missing or damaged."""
    for config in sorted(folder.rglob("*.json")):
        read_json(config)
    networks = [folder]
    if (folder / "model_index.json").exists():
        index = read_json(folder / "model_index.json")
        components = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
        for name in components:
            if not list((folder / name).glob("*config.json")):
                raise ValueError(f"{folder / name / 'config.json'} is missing; {ADVICE}")
        networks = [folder / name for name in components if (folder / name / "config.json").exists()]
    for network in networks:
        weights = sorted(network.glob("*.safetensors"))
        if not weights:
            raise ValueError(f"{network} holds no .safetensors file; {ADVICE}")
        for path in weights:
            tensor_names(path)


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, which must have the length that its header says."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from None


def check_network(network: nn.Module, folder: Path) -> None:
    """Raise `ValueError` naming a tensor that only one of `folder` and its loaded network has, or that holds NaN."""
    stored = {name: path for path in sorted(folder.glob("*.safetensors")) for name in tensor_names(path)}
    wanted = network.state_dict()
    if extra := [name for name in stored if name not in wanted]:
        what = f"{type(network).__name__} as config.json describes it"
        raise ValueError(f"{stored[extra[0]]} holds the tensor {extra[0]}, which {what} does not have; {ADVICE}")
    for name, tensor in wanted.items():
        if name not in stored:
            raise ValueError(f"{folder} lacks the tensor {name}; {ADVICE}")
        if not tensor.isfinite().all():
            raise ValueError(f"{stored[name]}: the tensor {name} holds NaN or infinite values; {ADVICE}")
