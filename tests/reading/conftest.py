"""What several tests of reading share."""

import pytest
import torch

from bd_diff.data.procedural import procedural_image
from bd_diff.pipeline import BDDiffPipeline


@pytest.fixture(scope="module")
def shipped():
    pipeline = BDDiffPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def leaves():
    """A sharp picture `(1, 3, 320, 320)` in [-1, 1]."""
    return procedural_image(320, torch.Generator().manual_seed(0), "leaves")[None] * 2 - 1
