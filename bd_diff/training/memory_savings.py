"""Which parameters train, and how training saves memory: LoRA, checkpointing, attention backend, 8-bit optimizer."""

import torch
from diffusers import ModelMixin
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import nn
from torch.optim import Optimizer

from bd_diff.models.components import construct
from bd_diff.stable_diffusion.adapters import has_lora, trained_with_lora

GIB = 2**30


def choose_trained(networks: nn.ModuleDict, names: tuple[str, ...] = ()) -> None:
    """Make the networks called `names` trainable, by default all but the VAE. Of a UNet with LoRA only the parameters
    in `trained_with_lora` train; pretrained parts (`borrowed`) never do. Raises ValueError for an unknown name.
    """
    if unknown := set(names) - set(networks):
        raise ValueError(f"trained: there is no network {min(unknown)}; the networks are {', '.join(networks)}")
    for name, network in networks.items():
        network.requires_grad_(name in names if names else name != "vae")
        for part in getattr(network, "borrowed", ()):
            getattr(network, part).requires_grad_(False)
    if has_lora(networks["unet"]) and (not names or "unet" in names):
        for name, parameter in networks["unet"].named_parameters():
            parameter.requires_grad_(trained_with_lora(name))


def use_checkpointing(networks: nn.ModuleDict) -> None:
    """Turn on gradient checkpointing in every network that supports it; ValueError where the UNet does not."""
    if not getattr(networks["unet"], "_supports_gradient_checkpointing", False):
        raise ValueError(
            f"gradient_checkpointing: {type(networks['unet']).__name__} does not support it; leave it false"
        )
    network: ModelMixin
    for network in networks.values():
        if getattr(network, "_supports_gradient_checkpointing", False):
            network.enable_gradient_checkpointing()


def use_attention(unet: ModelMixin, backend: str) -> None:
    """Use the attention of PyTorch ("sdpa") or of xformers. Raises ValueError where that does not work here."""
    if backend == "sdpa":
        for module in unet.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(AttnProcessor2_0())
        return
    if backend != "xformers":
        raise ValueError(f"attention_backend is {backend!r}; it must be sdpa or xformers")
    try:
        unet.enable_xformers_memory_efficient_attention()
    except Exception as error:  # not installed, no GPU, or a GPU it does not know: each has its own class there
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"attention_backend: xformers does not work here ({reason}); use sdpa") from error


def make_optimizer(parameters: list[nn.Parameter], settings: dict) -> Optimizer:
    """AdamW, or with `class: AdamW8bit` that of bitsandbytes; the other `settings` are its keyword arguments."""
    settings = dict(settings)
    kind = settings.pop("class", "AdamW")
    if kind == "AdamW":
        return construct(torch.optim.AdamW, {"params": parameters} | settings, "optimizer")
    if kind != "AdamW8bit":
        raise ValueError(f"optimizer.class is {kind!r}; it must be AdamW or AdamW8bit")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ValueError(
            "AdamW8bit needs bitsandbytes; pip install 'bd-diff[adam8bit]' or set optimizer.class=AdamW"
        ) from None
    return construct(AdamW8bit, {"params": parameters} | settings, "optimizer")


def memory_estimate(networks: nn.ModuleDict, settings: dict, averaged: bool) -> str:
    """One sentence on the memory that weights, gradients, optimizer and weight average take, without activations."""
    counts = [
        sum(p.numel() for p in networks.parameters() if p.requires_grad in kinds) for kinds in ({True, False}, {True})
    ]
    moments = 2 if settings.get("class") == "AdamW8bit" else 8
    parts = {"weights": 4 * counts[0], "gradients": 4 * counts[1], "optimizer": moments * counts[1]}
    parts |= {"average": 4 * counts[1]} if averaged else {}
    named = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    return f"memory: {sum(parts.values()) / GIB:.2f} GiB ({named}), and activations"
