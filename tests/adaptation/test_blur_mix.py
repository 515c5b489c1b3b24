"""Which blur a folder of photographs has, told without sharp twins."""

import pytest
import torch

from bd_diff.adaptation.blur_mix import blur_features, explain, fit_noise, some_sharp, source_features, synthesis_like
from bd_diff.blur.camera import Camera, add_noise
from bd_diff.blur.domains import photograph
from bd_diff.blur.synthesis import draw_blur
from bd_diff.commands.options import load_pipeline
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.protocols import eight_bit


@pytest.fixture(scope="module")
def sharp():
    return [procedural_image(224, torch.Generator().manual_seed(seed), "leaves") for seed in range(24)]


@pytest.fixture(scope="module")
def synthetic_features(sharp):
    return source_features(load_pipeline(None).pipeline, sharp[12:], 2 / 255)


def photographs(sharp, family, variation=0.0, noise=2 / 255):
    generator, camera = torch.Generator().manual_seed(0), Camera("srgb")
    taken = [photograph(one, draw_blur(family, generator, 1.0, variation), camera, generator) for one in sharp]
    sigmas = noise * torch.rand(len(taken), generator=generator)
    return list(eight_bit(add_noise(torch.stack(taken), 0.0, sigmas, generator)))


@pytest.mark.parametrize("variation", [0.0, 0.6])
@pytest.mark.parametrize("family", ["gaussian", "disc", "shake"])
def test_the_family_of_most_photographs_is_found_in_other_scenes(sharp, synthetic_features, family, variation):
    pipeline, blurry = load_pipeline(None).pipeline, photographs(sharp[:12], family, variation)
    shares = explain(torch.stack([blur_features(pipeline, one) for one in blurry]), *synthetic_features)
    assert sum(shares.values()) == pytest.approx(1, abs=0.06)
    assert max(shares, key=shares.get) == family


def test_noise_is_that_of_the_noisier_photographs(sharp):
    quiet, loud = (fit_noise(photographs(sharp, "gaussian", noise=noise)) for noise in (1 / 255, 16 / 255))
    assert quiet < 4 / 255 < 8 / 255 < loud < 18 / 255


def test_what_is_sharp_keeps_its_share():
    assert some_sharp({"disc": 0.75, "line": 0.25}, 0.2) == pytest.approx({"delta": 0.2, "disc": 0.6, "line": 0.2})


def test_photographs_that_are_too_small_are_told(tmp_path):
    save_image(to_image(procedural_image(64, torch.Generator().manual_seed(0))), tmp_path / "photographs/0.png")
    with pytest.raises(ValueError, match="photographs has no photograph of 96 pixels a side"):
        synthesis_like(tmp_path / "photographs", "nowhere", list, {}, 0.0, tmp_path / "kept.json")
