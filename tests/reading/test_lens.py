"""A model that knows the kernel of a lens takes it where it explains a photograph, and reads the others as usual."""

import json

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import blur, gaussian, line
from bd_diff.data.images import read_image, to_tensor
from bd_diff.models.model_folder import load_checked
from bd_diff.reading.confidence import distances
from bd_diff.reading.lens import as_lens


@pytest.fixture(scope="module")
def lens():
    """Soft, and a ghost of it 9 pixels aside: what no single photograph is read as."""
    soft = gaussian(torch.tensor([1.2]))
    return 0.6 * soft.roll(-3, 2) + 0.4 * soft.roll(6, 2)


@pytest.fixture(scope="module")
def pipeline(lens):
    pipeline = BDDiffPipeline.from_pretrained()
    pipeline.register_to_config(lens=as_lens(lens))
    return pipeline


@pytest.fixture(scope="module")
def sharp():
    return to_tensor(read_image(ROOT / "assets/sharp/gb82_dog.webp"))[None, :, :232, :232].float()


def test_photographs_of_the_lens_get_its_kernel_and_shaken_ones_their_own(pipeline, lens, sharp):
    shaken = blur(sharp, line(torch.tensor([15.0]), torch.tensor([1.2])), "valid")
    images = torch.cat([blur(sharp, lens, "valid"), shaken]) * 2 - 1
    reading = pipeline.read_at_scales(images, fast=True)
    assert distances(lens, reading.kernels[:1]) < 2e-3 and not reading.doubtful.any()  # as its tokens tell it
    assert torch.equal(reading.kernels[1], BDDiffPipeline.from_pretrained().read_at_scales(images, True).kernels[1])


def test_a_photograph_too_small_to_tell_is_read_as_usual(pipeline, lens, sharp):
    small = blur(sharp, lens, "valid")[..., :64, :64] * 2 - 1
    usual = BDDiffPipeline.from_pretrained().read_at_scales(small).kernels
    assert torch.equal(pipeline.read_at_scales(small).kernels, usual)


def test_the_lens_is_saved_with_the_model_and_a_damaged_one_is_named(tiny_pipeline_folder, lens, tmp_path):
    begun = BDDiffPipeline.from_pretrained(tiny_pipeline_folder)
    begun.register_to_config(lens=as_lens(lens))
    begun.save_pretrained(tmp_path)
    assert load_checked(BDDiffPipeline, tmp_path).config.lens == as_lens(lens)
    index = json.loads((tmp_path / "model_index.json").read_text())
    kernels = [[0.5, -0.5]], [], "large", [[1.0], [1.0, 0.0]], [[0.0]]
    for damaged in (3, {"nucleus": [[1.0]]}, *({"kernel": kernel} for kernel in kernels)):
        (tmp_path / "model_index.json").write_text(json.dumps(index | {"lens": damaged}))
        with pytest.raises(ValueError, match="lens (holds|is|has)"):
            load_checked(BDDiffPipeline, tmp_path)
