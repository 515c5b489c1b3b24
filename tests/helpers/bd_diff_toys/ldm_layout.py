"""The single file that Stable Diffusion was first published as: how its tensors were called there, and made here."""

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from bd_diff_toys import ROOT
from bd_diff_toys.stable_diffusion import save_base

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
UNET = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2"}  # fmt: skip
VAE = [(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
       (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
       (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
       (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
       (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
       (r"mid_block\.attentions\.0", "mid.attn_1"), (r"conv_norm_out", "norm_out"), (r"conv_shortcut", "nin_shortcut"),
       (r"group_norm", "norm"), (r"to_([qkv])\.", r"\1."), (r"to_out\.0", "proj_out")]  # fmt: skip


def unet_name(name: str) -> str:
    """Of a UNet with two layers a block: a name of diffusers to that of CompVis's `openaimodel.UNetModel`."""
    if found := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.", name):
        side, block, kind, layer = found[1], int(found[2]), found[3], int(found[4])
        number = 3 * block + layer + (side == "down")
        start = f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}."
        name = start + name[found.end() :]
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op", name)
    # The upsampler comes last of its block, so after the attention, which only the first block does not have.
    name = re.sub(
        r"up_blocks\.(\d)\.upsamplers\.0",
        lambda m: f"output_blocks.{3 * int(m[1]) + 2}.{1 if m[1] == '0' else 2}",
        name,
    )
    for new, old in UNET.items():
        name = re.sub(rf"^{re.escape(new)}\.", f"{old}.", name)
    if re.match(r"(input|output)_blocks\.\d+\.0\.|middle_block\.[02]\.", name):
        for new, old in RESNET.items():
            name = re.sub(rf"\b{new}\.", f"{old}.", name)
    return f"model.diffusion_model.{name}"


def vae_name(name: str) -> str:
    for new, old in VAE:
        name = re.sub(new, old, name)
    return f"first_stage_model.{name}"


def original_layout(unet: nn.Module, vae: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors by their old names; the VAE's attention was made of 1x1 convolutions."""
    tensors = {unet_name(name): tensor for name, tensor in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        convolution = ".attentions." in name and tensor.ndim == 2
        tensors[vae_name(name)] = tensor[..., None, None] if convolution else tensor
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def described(part: str) -> dict:
    """The configuration of Stable Diffusion 2.1's UNet or VAE."""
    return json.loads((ROOT / f"configs/sd21_base/{part}/config.json").read_text())


def save_single_file(folder: Path, linear: bool, dtype=torch.float32):
    """`folder/sd` in the layout of diffusers and `folder/sd.safetensors`, of a narrow Stable Diffusion 2 (`linear`
    projections) or 1: all its layers, with what else stands in such files.
    """
    torch.manual_seed(0)
    narrow = {"block_out_channels": (8, 16, 24, 24), "norm_num_groups": 4}
    heads = {"attention_head_dim": (1, 2, 3, 3) if linear else 2, "use_linear_projection": linear}
    unet = UNet2DConditionModel.from_config(described("unet") | narrow | heads | {"cross_attention_dim": 16})
    vae = AutoencoderKL.from_config(described("vae") | narrow)
    save_base(folder / "sd", unet=unet.to(dtype), vae=vae.to(dtype))
    more = {
        "betas": torch.linspace(0.1, 0.2, 1000),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": torch.zeros(9, 16),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
    }
    save_file(original_layout(unet, vae) | more, folder / "sd.safetensors")
    return folder / "sd.safetensors"
