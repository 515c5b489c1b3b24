"""Stable Diffusion at toy width, random weights, saved in the layout of the hub."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel

SIZES = {  # sections of a configuration
    "image_encoder": {"feature_channels": 16, "structure_channels": 8, "map_channels": 4},
    "structure_qformer": {"num_queries": 5, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
    "blur_qformer": {"hidden_size": 16, "num_layers": 1, "num_heads": 2},
}


def toy_unet(**settings):
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
        }
        | settings
    )


def toy_vae(**settings):
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 8, 8, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "norm_num_groups": 4,
            "latent_channels": 4,
            "sample_size": 64,
        }
        | settings
    )


def save_base(folder, prediction_type="epsilon", unet=None, vae=None):
    """A base folder as the hub has it: SD 2.1 (v-prediction, DDIM) or SD 1.5 and 2.1-base (epsilon, PNDM)."""
    torch.manual_seed(0)
    (unet or toy_unet()).save_pretrained(folder / "unet")
    (vae or toy_vae()).save_pretrained(folder / "vae")
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    kind = DDIMScheduler if prediction_type == "v_prediction" else PNDMScheduler
    kind(**schedule, prediction_type=prediction_type).save_pretrained(folder / "scheduler")
    return folder
