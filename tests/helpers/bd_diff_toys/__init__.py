"""Toys and helpers of the tests, under a name of their own that no installed package has."""

from pathlib import Path

ROOT = Path(__file__).parents[3]

TINY = {
    "image_encoder": {"feature_channels": 16, "structure_channels": 8, "map_channels": 4},
    "structure_qformer": {
        "num_queries": 4,
        "feature_channels": 16,
        "token_channels": 16,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
    },
    "blur_decoder": {"token_channels": 16, "map_channels": 4},
    "unet": {"width": 8, "middle_blocks": 1, "cross_attention_dim": 16},
    "scheduler": {
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "clip_sample": False,
    },
}
TINY["blur_qformer"] = {name: value for name, value in TINY["structure_qformer"].items() if name != "num_queries"}
