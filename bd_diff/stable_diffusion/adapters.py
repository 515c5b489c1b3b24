"""LoRA on a base's UNet; all that training adds to a base as one small folder, and loading that onto the base."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, DiffusionPipeline, ModelMixin
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bd_diff.data.writing import replacing_folder
from bd_diff.models.model_folder import ADAPTER, ADVICE, LARGEST_NUMBER, check_numbers, no_more_than, read_json
from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.stable_diffusion.base_model import HUB_SETTINGS, components_from_base, load_base

WEIGHTS = "adapter.safetensors"
LARGEST_TOWER = 2**31  # numbers in a vision tower that an adapter borrows
OF_FILES = {"variant", "revision", "use_safetensors", "low_cpu_mem_usage", *HUB_SETTINGS}  # of diffusers' loading
# LoRA is for the rest of the UNet: cross-attention reads new tokens and the input new channels, so both train in full.
LORA_LAYERS = r".*(attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out|conv1|conv2|conv_shortcut)"


def add_lora(unet: ModelMixin, rank: int) -> None:
    """Add LoRA of a rank to the UNet's self-attention, feed-forward, residual blocks and projections.

    Untrained, it changes nothing.
    """
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=LORA_LAYERS))


def has_lora(unet: nn.Module) -> bool:
    return bool(getattr(unet, "peft_config", None))


def trained_with_lora(name: str) -> bool:
    """Whether training changes the UNet's tensor of this name when the UNet carries LoRA."""
    return name.startswith("conv_in.") or ".attn2." in name or ".lora_" in name


def merge_lora(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline with LoRA added into the weights of a copy of its UNet, so that it saves as any other."""
    unet = copy.deepcopy(pipeline.unet)
    unet.fuse_lora()
    unet.unload_lora()
    return type(pipeline)(**pipeline.components | {"unet": unet}, **settings_of(pipeline))


def settings_of(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """The constructor arguments of a pipeline that are not components."""
    return {
        name: value
        for name, value in pipeline.config.items()
        if not name.startswith("_") and name not in pipeline.components
    }


def own_tensors(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """All tensors, `component.name -> tensor`, that are neither in the base nor borrowed from another model."""
    own = {}
    for component, network in pipeline.components.items():
        if not isinstance(network, nn.Module) or type(network) is AutoencoderKL:
            continue
        borrowed = [f"{part}." for part in getattr(network, "borrowed", ())]
        for name, tensor in network.state_dict().items():
            if trained_with_lora(name) if component == "unet" else not any(map(name.startswith, borrowed)):
                own[f"{component}.{name}"] = tensor
    return own


def save_adapter(pipeline: DiffusionPipeline, folder: str | Path) -> None:
    """Write what a pipeline with LoRA adds to its base, and the base's id and hash.

    Raises ValueError for a pipeline without LoRA or without a recorded base.
    """
    base = pipeline.config.base
    if not base or not base.get("sha256") or not has_lora(pipeline.unet):
        raise ValueError("this pipeline has no LoRA or does not know its base, so it is no adapter; save it whole")
    sections: dict[str, Any] = {}
    for name, part in pipeline.components.items():
        if part is None:
            sections[name] = None
        elif name not in ("unet", "scheduler") and type(part) is not AutoencoderKL:
            sections[name] = {key: value for key, value in part.config.items() if not key.startswith("_")}
            sections[name]["class"] = type(part).__name__
    sections["pipeline"] = settings_of(pipeline)
    described = {
        "base": base,
        "lora_rank": next(iter(pipeline.unet.peft_config.values())).r,
        "networks": sections,
        "scheduler": dict(pipeline.scheduler.config),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in own_tensors(pipeline).items()}
    with replacing_folder(folder) as temporary:
        save_file(state, temporary / WEIGHTS, {"format": "pt"})
        (temporary / ADAPTER).write_text(json.dumps(described, indent=1) + "\n")


def check_described(path: Path, described: dict[str, Any]) -> None:
    """Raise ValueError if an entry of an adapter's description is missing or of a wrong type or size."""
    kinds = {"base": dict, "lora_rank": int, "networks": dict, "scheduler": dict}
    wrong = [name for name, kind in kinds.items() if type(described.get(name)) is not kind]
    if not wrong:
        wrong = [f"base.{name}" for name in ("id", "sha256") if not isinstance(described["base"].get(name), str)]
    if wrong:
        raise ValueError(f"{path} is damaged (its {wrong[0]} is missing or of another type); {ADVICE}")
    check_numbers(path, described, LARGEST_NUMBER)


def load_adapter(
    pipeline_class: type[DiffusionPipeline],
    folder: str | Path,
    base: str | None = None,
    base_config: str | None = None,
    dtype: torch.dtype | None = None,
    torch_dtype: torch.dtype | None = None,
    device_map: str | torch.device | None = None,
    **settings,
) -> DiffusionPipeline:
    """The pipeline that `save_adapter` wrote, as one of `pipeline_class`, on its base, with LoRA in place.

    base: where the base is, if not where it was; base_config: see `load_base`. dtype, or torch_dtype: of all networks.
    device_map: the device that all of it goes to. settings: `HUB_SETTINGS` are used to find the base; components and
    settings of the pipeline replace the adapter's; diffusers' settings of files (`variant`, `revision`, ...) are
    ignored, since an adapter is one file and its base is identified by its hash.

    Raises ValueError for a base that is not found or has another hash, for a tensor or file that is missing, damaged or
    unexpected, and for a device map of several devices; TypeError for unknown settings.
    """
    dtype = dtype or torch_dtype
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch_dtype is {dtype!r}; an adapter takes one torch.dtype for all networks")
    if isinstance(device_map, dict) or device_map in ("auto", "balanced", "sequential"):
        raise ValueError(f"device_map is {device_map!r}; an adapter goes to one device, such as 'cuda'")
    folder = Path(folder)
    described = read_json(folder / ADAPTER)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS} is missing or damaged ({error}); {ADVICE}") from None
    check_described(folder / ADAPTER, described)
    places = [base] if base else [described["base"]["id"]]
    hub = {name: settings.pop(name) for name in HUB_SETTINGS if settings.get(name) is not None}
    found = load_base(places, base_config or described["base"].get("config"), **hub)
    wanted = described["base"]["sha256"]
    assert found.sha256 is not None  # its weights were read
    if found.sha256 != wanted:
        raise ValueError(
            f"{folder} was trained on another base than {places[0]} (sha256 {wanted[:12]}, found {found.sha256[:12]}); "
            f"pass base= with the place of {described['base']['id']}"
        )
    sections = {name: section for name, section in described["networks"].items() if name != "vae"}
    with no_more_than(len(state), sum(tensor.numel() for tensor in state.values()), spare=LARGEST_TOWER):
        pipeline = pipeline_class(**components_from_base(found, sections))
    add_lora(pipeline.unet, described["lora_rank"])
    if described["networks"].get("vae", {}).get("class") == "AutoencoderTiny":
        pipeline.vae = AutoencoderTiny.from_config(described["networks"]["vae"]).eval()
    elif any(name.startswith("vae.") for name in state):
        pipeline.vae = RefinedVAE.around(pipeline.vae)
    own = own_tensors(pipeline)
    for name in sorted(own.keys() ^ state.keys()):
        how = "lacks" if name in own else "holds, too much,"
        raise ValueError(f"{folder / WEIGHTS} {how} the tensor {name}; {ADVICE}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ValueError(f"{folder / WEIGHTS}: {name} is of shape {tuple(state[name].shape)}; {ADVICE}")
            if tensor.is_floating_point() and not (state[name].is_floating_point() and state[name].isfinite().all()):
                raise ValueError(f"{folder / WEIGHTS}: {name} holds NaN or infinite values, or whole numbers; {ADVICE}")
            tensor.copy_(state[name])
    pipeline.scheduler = DDIMScheduler.from_config(described["scheduler"])
    replace_parts(pipeline, settings)
    if dtype is not None:
        pipeline.to(dtype)
    return pipeline if device_map is None else pipeline.to(device_map)


def replace_parts(pipeline: DiffusionPipeline, settings: dict[str, Any]) -> None:
    """Replace the pipeline's components and plain settings by those given. Raises TypeError for unknown names."""
    existing = settings_of(pipeline)
    if unknown := set(settings) - set(pipeline.components) - set(existing) - OF_FILES:
        raise TypeError(f"from_pretrained has no setting {min(unknown)}; it has {', '.join(sorted(existing))}")
    parts = {name: value for name, value in settings.items() if name in pipeline.components}
    pipeline.register_modules(**parts)
    pipeline.register_to_config(**{name: value for name, value in settings.items() if name in existing})
    pipeline.check_channels()
