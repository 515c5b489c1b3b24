"""Stable Diffusion as a base: finds a UNet, a VAE and a noise schedule, checks them, and makes a BD-Diff of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn

from bd_diff.models.components import build_components
from bd_diff.models.conditioning import guess_count
from bd_diff.models.fingerprint import fingerprint
from bd_diff.models.model_folder import ADVICE, align, check_files, headers, no_more_than, read_json
from bd_diff.models.unet import widened

PARTS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
CONFIGS = ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
LAYOUT = "a base is a folder with unet/, vae/ and scheduler/ as diffusers saves them"
HUB_SETTINGS = ("cache_dir", "force_download", "local_files_only", "proxies", "token")  # of the hub's client
# On the hub the same network often lies several times in its folder, for other libraries and in other precisions.
WEIGHTS = ["diffusion_pytorch_model.safetensors", "*.safetensors.index.json", "diffusion_pytorch_model-*.safetensors"]


@dataclass
class Base:
    """A pretrained latent diffusion model.

    place: the path or hub id that it came from. config: the path or hub id of the configuration, for a single file.
    """

    place: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler
    config: str | None = None

    @cached_property
    def sha256(self) -> str | None:
        """The hash of the UNet and VAE as they were loaded; None if only the configuration was read."""
        empty = any(parameter.is_meta for parameter in self.unet.parameters())
        return None if empty else fingerprint(self.unet, self.vae)


def load_base(
    places: str | Path | Sequence[str | Path], config: str | Path | None = None, weights: bool = True, **hub
) -> Base:
    """The first base in `places` that exists: local folders and files first, then hub ids, in order.

    Args:
        places: folders in the layout of diffusers, hub ids, or single .safetensors files of the original layout.
        config: a folder or hub id in the layout of diffusers whose configuration describes a single file.
        weights: False reads the configuration alone; the networks are random, or empty inside `torch.device("meta")`.
        hub: `HUB_SETTINGS` of the hub's client.

    Raises ValueError if none exists, naming every place that was tried, and for a base that cannot be used, naming why.
    """
    places = [places] if isinstance(places, (str, Path)) else list(places)
    failures = []
    for place in sorted(places, key=lambda place: not Path(place).exists()):
        try:
            folder = find(place, weights, **hub)
        except OSError as error:
            failures.append(f"{place} ({error})")
            continue
        return (
            load_file(folder, config, weights, **hub) if folder.is_file() else load_folder(folder, str(place), weights)
        )
    raise ValueError(f"no base was found; tried {'; '.join(failures) or 'nothing, as none was named'}")


def find(place: str | Path, weights: bool = True, **hub) -> Path:
    """The local folder or file of a base; what it needs of a hub repository is downloaded.

    Raises OSError if there is none.
    """
    path = Path(place)
    if path.exists():
        return path
    if path.is_absolute() or str(place).startswith(".") or len(path.parts) != 2:
        raise FileNotFoundError("no such file or folder, and not a hub id of the form name/model")
    from huggingface_hub import snapshot_download

    wanted = CONFIGS + ["*config.json"] + [f"{part}/{name}" for part in PARTS for name in WEIGHTS if weights]
    try:
        return Path(snapshot_download(str(place), allow_patterns=wanted, **hub))
    except Exception as error:  # no network, no such model, no permission: each has its own class there
        raise OSError(
            f"not a local path, and the hub does not give it: {str(error).strip().splitlines()[0]}"
        ) from error


def load_folder(folder: Path, place: str, weights: bool) -> Base:
    """A base in the layout of diffusers. Raises ValueError naming what is missing, damaged or unfit."""
    if not (folder / "unet" / "config.json").exists():
        kind = read_json(folder / "config.json").get("model_type") if (folder / "config.json").exists() else None
        what = f"it holds a {kind} model" if kind else "it has no unet/config.json"
        if (folder / "transformer" / "config.json").exists():
            kind = read_json(folder / "transformer" / "config.json").get("_class_name")
            what = f"its network is the transformer {kind} (as of SD3, FLUX or Qwen-Image), and BD-Diff needs a UNet"
        raise ValueError(f"{place} is no base: {what}; {LAYOUT}")
    configs = {name: read_json(folder / name) for name in CONFIGS}
    unet, vae, schedule = configs.values()
    check_fit(place, unet, vae)
    network, autoencoder = (load_part(folder / name, weights) for name in PARTS)
    return Base(place, network, autoencoder, make_scheduler(schedule, place))


def load_file(path: Path, config: str | Path | None, weights: bool, **hub) -> Base:
    """A single file of the original layout, through diffusers' converter."""
    if config is None:
        raise ValueError(
            f"{path} does not say its architecture; name a folder or hub id with its configuration as well"
        )
    folder = find(config, weights=False, **hub)
    described = load_folder(folder, str(config), weights=False)
    if not weights:
        return described
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is not a .safetensors file; {LAYOUT}, or one .safetensors file")
    parts = {}
    for name, kind in PARTS.items():
        try:
            parts[name] = kind.from_single_file(str(path), config=str(folder / name), dtype=torch.float32)
        except NotImplementedError as error:  # what the file does not hold stays on the meta device
            raise ValueError(f"{path} lacks tensors of the {name} that {config} describes; {ADVICE}") from error
        except Exception as error:  # damaged, or another architecture: the converter raises whatever came first
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{path} does not hold what {config} describes: {reason}") from error
    parts = {name: align(part) for name, part in parts.items()}  # the same to the bit as from a folder
    return Base(str(path), **parts, scheduler=described.scheduler, config=str(config))


def check_fit(place: str, unet: dict[str, Any], vae: dict[str, Any]) -> None:
    """Raise ValueError unless these configure a UNet conditioned by tokens alone and a VAE that fits it."""
    blocks = unet.get("down_block_types", ["CrossAttnDownBlock2D"])
    if unet.get("_class_name") == "UNet2DModel" or not any("CrossAttn" in block for block in blocks):
        raise ValueError(f"{place}: its UNet has no cross-attention, so it cannot read tokens; choose another base")
    for name, values in (("unet", unet), ("vae", vae)):
        if values.get("_class_name") != PARTS[name].__name__:
            raise ValueError(
                f"{place}: {name} is a {values.get('_class_name')}; BD-Diff needs a {PARTS[name].__name__}"
            )
    if unet.get("addition_embed_type") == "text_time":
        raise ValueError(
            f"{place} is a Stable Diffusion XL: its UNet needs pooled text and sizes (added_cond_kwargs) beside "
            "tokens, which BD-Diff does not make; choose SD 1.x or 2.x, or SD-Turbo"
        )
    for name in ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if unet.get(name) is not None:
            raise ValueError(
                f"{place}: its UNet needs {name} {unet[name]} beside tokens; choose a base without (SD 1.x, 2.x)"
            )
    width = vae.get("latent_channels", 4)
    if (unet.get("in_channels", 4), unet.get("out_channels", 4)) != (width, width):
        raise ValueError(
            f"{place}: its UNet takes {unet.get('in_channels', 4)} channels and gives {unet.get('out_channels', 4)}, "
            f"but the latents of its VAE have {width}; choose a text-to-image base"
        )


def load_part(folder: Path, weights: bool) -> nn.Module:
    """The UNet or the VAE of a base, float32. Raises ValueError for a file that is missing or damaged."""
    kind = PARTS[folder.name]
    if not weights:
        return kind.from_config(kind.load_config(folder))
    if not (stored := list(folder.glob("*.safetensors"))):
        raise ValueError(f"{folder} holds no .safetensors file; {ADVICE}")
    check_files(folder)
    shapes = [shape for shape, _ in headers(folder).values()]
    # The hub's own names of tensors are often older than diffusers, which translates them: so it is asked what lacks.
    plain = any(path.name.startswith("diffusion_pytorch_model") and ".fp16." not in path.name for path in stored)
    try:
        with no_more_than(len(shapes), sum(map(math.prod, shapes))):
            network, report = kind.from_pretrained(
                folder,
                variant=None if plain else "fp16",
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # constructors raise anything
        raise ValueError(f"{folder} cannot be loaded: {str(error).strip().split('. ')[0]}; {ADVICE}") from error
    if missing := report["missing_keys"]:
        raise ValueError(f"{folder} lacks the tensor {sorted(missing)[0]}; {ADVICE}")
    return align(network)


def make_scheduler(config: dict[str, Any], place: str) -> DDIMScheduler:
    """A DDIM scheduler with the noise schedule and prediction type of the base.

    Its sampling starts at the last timestep (`timestep_spacing="trailing"`). Raises ValueError for a base of another
    prediction type or without a schedule of betas, as those trained by flow matching.
    """
    if not {"beta_schedule", "trained_betas"} & set(config):
        raise ValueError(
            f"{place}: its scheduler {config.get('_class_name')} has no schedule of betas (flow matching has none); "
            "choose SD 1.x or 2.x, or SD-Turbo"
        )
    scheduler = DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False)
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        kind = scheduler.config.prediction_type
        raise ValueError(
            f"{place}: its scheduler predicts {kind}; BD-Diff needs a base that predicts epsilon or v_prediction"
        )
    return scheduler


def widen_input(unet: UNet2DConditionModel, channels: int) -> None:
    """Let a UNet take `channels` input channels: new weights are zero, so nothing changes until they are trained."""
    unet.conv_in = widened(unet.conv_in, channels)
    unet.register_to_config(in_channels=channels)


def components_from_base(base: Base, sections: dict[str, Any] | None = None) -> dict[str, Any]:
    """Constructor arguments of an untrained pipeline over a base.

    The UNet's input is the noise and the guesses of the blur operator; if the section `blur_decoder` is None, the noise
    and the photograph. sections: those of `build_components`, without unet, vae and scheduler; what follows from the
    base or from another section (widths, numbers of tokens) need not be given. Raises ValueError for unknown names.
    """
    explicit = not (sections and "blur_decoder" in sections and sections["blur_decoder"] is None)
    sections = {name: dict(section or {}) for name, section in (sections or {}).items()}
    if fixed := sorted(set(sections) & {"unet", "vae", "scheduler"}):
        raise ValueError(f"networks: {fixed[0]} comes from the base and cannot be set")
    origin = {"id": base.place, "sha256": base.sha256} | ({"config": base.config} if base.config else {})
    seen = guess_count(sections.get("pipeline", {}).get("linear_light", False)) if explicit else 1
    widen_input(base.unet, (1 + seen) * base.vae.config.latent_channels)
    tokens = {"token_channels": base.unet.config.cross_attention_dim}
    encoder = sections.setdefault("image_encoder", {})
    features = encoder.setdefault("feature_channels", 128)
    tower = encoder.get("tower") or {}  # of CLIP, whose channels have one name in transformers, another in OpenCLIP
    structure = {"feature_channels": tower.get("hidden_size") or tower.get("width") or features}
    sections["structure_qformer"] = tokens | structure | sections.get("structure_qformer", {})
    sections["blur_qformer"] = tokens | {"feature_channels": features} | sections.get("blur_qformer", {})
    sections["blur_decoder"] = tokens | sections.get("blur_decoder", {}) if explicit else None
    sections["pipeline"] = {"residual": False, "default_steps": 20, "base": origin} | sections.get("pipeline", {})
    components = build_components(sections, unet=base.unet, vae=base.vae, scheduler=base.scheduler)
    if encoder.get("source") and base.sha256:
        components["image_encoder"].load_tower()
    return components
