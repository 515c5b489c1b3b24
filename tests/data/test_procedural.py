"""Procedural sharp images."""

import pytest
import torch

from bd_diff.data.pixels import luminance
from bd_diff.data.procedural import SHARES, ProceduralImages, procedural_image


def image(kind, seed, size=128):
    return procedural_image(size, torch.Generator().manual_seed(seed), kind)


@pytest.mark.parametrize("kind", SHARES)
def test_each_kind_is_an_eight_bit_image_with_contrast_that_follows_its_seed(kind):
    one = image(kind, 1)
    assert one.shape == (3, 128, 128) and 0 <= one.min() and one.max() <= 1
    assert torch.equal((one * 255).round() / 255, one)
    assert one.std() > 0.05
    assert torch.equal(one, image(kind, 1)) and not torch.equal(one, image(kind, 2))


def test_leaves_have_the_amplitude_spectrum_of_photographs():
    size, power = 128, 0
    window = torch.hann_window(size, periodic=True)
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size))
    for seed in range(12):
        grey = luminance(image("leaves", seed)[None])[0, 0]
        power = power + torch.fft.rfft2((grey - grey.mean()) * window * window[:, None]).abs().square()
    bands = torch.logspace(-1.5, -0.5, 8)  # cycles a pixel
    inside = [(frequency >= low) & (frequency < high) for low, high in zip(bands[:-1], bands[1:], strict=True)]
    amplitude = torch.stack([power[band].mean().sqrt() for band in inside])
    centre = (bands[:-1] * bands[1:]).sqrt()
    x, y = centre.log() - centre.log().mean(), amplitude.log()
    assert float((x * y).sum() / x.square().sum()) == pytest.approx(-1.2, abs=0.3)


def test_samples_are_a_pure_function_of_seed_and_index():
    samples = ProceduralImages(32, seed=4)
    assert torch.equal(samples[7]["sharp"], ProceduralImages(32, seed=4)[7]["sharp"])
    assert not torch.equal(samples[7]["sharp"], samples[8]["sharp"])


def test_an_unknown_kind_is_told_which_exist():
    with pytest.raises(ValueError, match="no procedural image 'cats'; the kinds are leaves, text, edges"):
        image("cats", 0)
