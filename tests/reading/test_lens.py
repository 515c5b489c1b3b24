"""A model that knows the kernel of a lens takes it where it explains a photograph, and reads the others as usual."""

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import blur, gaussian
from bd_diff.data.images import read_image, to_tensor


@pytest.fixture(scope="module")
def lens():
    """Soft, and a ghost of it 6 pixels aside: what no single photograph is read as."""
    soft = gaussian(torch.tensor([1.2]))
    return 0.65 * soft.roll(-3, 2) + 0.35 * soft.roll(3, 2)


@pytest.fixture(scope="module")
def pipeline(lens):
    pipeline = BDDiffPipeline.from_pretrained()
    pipeline.register_to_config(lens={"kernel": lens[0].tolist()})
    return pipeline


@pytest.fixture(scope="module")
def sharp():
    return to_tensor(read_image(ROOT / "assets/sharp/gb82_dog.webp"))[None, :, :232, :232] / 255


def test_a_photograph_too_small_to_tell_is_read_as_usual(pipeline, lens, sharp):
    small = blur(sharp, lens, "valid")[..., :64, :64] * 2 - 1
    assert torch.equal(
        pipeline.encode_image(small).kernels, BDDiffPipeline.from_pretrained().encode_image(small).kernels
    )


def test_the_lens_is_saved_with_the_model(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    assert BDDiffPipeline.from_pretrained(tmp_path / "model").config.lens == pipeline.config.lens
