"""Toy-size BD-Diff pipelines on the real classes, shared by the tests."""

import os

import pytest
import torch

from bd_diff.variants import build_pipeline

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
    "blur_decoder": {"num_tokens": 4, "token_channels": 16, "map_channels": 4},
    "unet": {"width": 8, "middle_blocks": 1, "cross_attention_dim": 16},
    "scheduler": {
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "clip_sample": False,
    },
}
TINY["blur_qformer"] = TINY["structure_qformer"]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests, and what they start, share the cores."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def tiny_pipeline():
    """An untrained pipeline whose every layer matters: nothing is left at its zero initialisation."""
    torch.manual_seed(0)
    pipeline = build_pipeline(TINY)
    for name in ("unet", "blur_decoder"):
        for parameter in getattr(pipeline, name).parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return folder
