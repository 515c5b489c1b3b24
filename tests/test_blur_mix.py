"""Which blur a folder of photographs has, told without sharp twins."""

import pytest
import torch

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur_mix import fit_families, fit_noise, mixed, synthesis_like
from bd_diff.commands.options import load_pipeline
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.domain_gap import synthetic_pair


@pytest.fixture(scope="module")
def sharp():
    return [procedural_image(224, torch.Generator().manual_seed(seed), "leaves") for seed in range(24)]


def photographs(sharp, family, noise=2 / 255):
    return [
        synthetic_pair(one, {family: 1.0}, RandomCamera(noise, "srgb"), torch.Generator().manual_seed(index))[0]
        for index, one in enumerate(sharp)
    ]


@pytest.mark.parametrize("family", ["gaussian", "disc", "shake"])
def test_the_family_of_most_photographs_is_found_in_other_scenes(sharp, family):
    shares = fit_families(load_pipeline(None).pipeline, photographs(sharp[:12], family), sharp[12:], 2 / 255)
    assert sum(shares.values()) == pytest.approx(1, abs=0.06)
    assert max(shares, key=shares.get) == family


def test_noise_is_that_of_the_noisier_photographs(sharp):
    quiet, loud = (fit_noise(photographs(sharp, "gaussian", noise)) for noise in (1 / 255, 16 / 255))
    assert quiet < 4 / 255 < 8 / 255 < loud < 18 / 255


def test_a_mixture_is_half_of_each():
    assert mixed({"gaussian": 0.6, "line": 0.4}, {"disc": 1.0}) == {"gaussian": 0.3, "line": 0.2, "disc": 0.5}


def test_photographs_that_are_too_small_are_told(tmp_path):
    save_image(to_image(procedural_image(64, torch.Generator().manual_seed(0))), tmp_path / "photographs/0.png")
    with pytest.raises(ValueError, match="photographs has no photograph of 96 pixels a side"):
        synthesis_like(tmp_path / "photographs", "nowhere", [], {}, 0.0, tmp_path / "kept.json")
