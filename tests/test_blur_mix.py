"""Which blur a folder of photographs has, told without sharp twins."""

import pytest
import torch

from bd_diff.blur_mix import (
    blur_features,
    explain,
    fit_noise,
    known_families,
    mixed,
    synthesis_like,
    synthetic_photograph,
)
from bd_diff.commands.options import load_pipeline
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image


@pytest.fixture(scope="module")
def sharp():
    return [procedural_image(224, torch.Generator().manual_seed(seed), "leaves") for seed in range(24)]


@pytest.fixture(scope="module")
def known(sharp):
    return known_families(load_pipeline(None).pipeline, sharp[12:], 2 / 255)


def photographs(sharp, family, variation=0.0, noise=2 / 255):
    generator = torch.Generator().manual_seed(0)
    return [synthetic_photograph(one, family, variation, noise, generator) for one in sharp]


@pytest.mark.parametrize("variation", [0.0, 0.6])
@pytest.mark.parametrize("family", ["gaussian", "disc", "shake"])
def test_the_family_of_most_photographs_is_found_in_other_scenes(sharp, known, family, variation):
    pipeline, blurry = load_pipeline(None).pipeline, photographs(sharp[:12], family, variation)
    shares = explain(torch.stack([blur_features(pipeline, one) for one in blurry]), *known)
    assert sum(shares.values()) == pytest.approx(1, abs=0.06)
    assert max(shares, key=shares.get) == family


def test_noise_is_that_of_the_noisier_photographs(sharp):
    quiet, loud = (fit_noise(photographs(sharp, "gaussian", noise=noise)) for noise in (1 / 255, 16 / 255))
    assert quiet < 4 / 255 < 8 / 255 < loud < 18 / 255


def test_a_mixture_is_half_of_each():
    assert mixed({"gaussian": 0.6, "line": 0.4}, {"disc": 1.0}) == {"gaussian": 0.3, "line": 0.2, "disc": 0.5}


def test_photographs_that_are_too_small_are_told(tmp_path):
    save_image(to_image(procedural_image(64, torch.Generator().manual_seed(0))), tmp_path / "photographs/0.png")
    with pytest.raises(ValueError, match="photographs has no photograph of 96 pixels a side"):
        synthesis_like(tmp_path / "photographs", "nowhere", [], {}, 0.0, tmp_path / "kept.json")
