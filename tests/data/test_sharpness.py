"""Sharpness, against plain filters of scipy, and how it falls with blur."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from bd_diff.data import sharpness as module
from bd_diff.data.sharpness import CONTRAST, NOISE, REACH, STEPS, largest, noise, sharpness


@pytest.fixture(scope="module")
def photograph():
    return (data.astronaut()[:150, 150:320] / 255).astype(np.float32)


def by_filters(pixels, seen):
    """The measure as its docstring says it, a whole picture at once, in floats."""
    height, width = seen.shape
    places, shares = np.zeros(seen.shape), []
    for light in np.moveaxis(np.rint(pixels * STEPS), -1, 0):
        padded = np.pad(light, 1, mode="edge")
        contrast = ndimage.maximum_filter(light, 2 * REACH + 3) - ndimage.minimum_filter(light, 2 * REACH + 3)
        structure = seen & (contrast > CONTRAST * STEPS)
        level = NOISE * noise(np.pad(light.astype(np.int16), REACH + 1, mode="edge"))
        ratios = []
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            ahead = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            behind = padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]
            bend = ndimage.maximum_filter(np.abs(ahead + behind - 2 * light), 2 * REACH + 1)
            ratios.append(np.where(structure & (bend > level), bend / np.maximum(contrast, 1), 0))
        places = np.maximum(places, np.minimum.reduce(ratios))
        shares.append(min((ratio > 0.5).sum() for ratio in ratios) / structure.sum())
    return places, max(shares)


@pytest.mark.parametrize("strip", [7, 64, 1000])
@pytest.mark.parametrize("hidden", [False, True])
def test_it_is_what_filters_of_the_whole_picture_give_at_any_height_of_strips(photograph, strip, hidden, monkeypatch):
    monkeypatch.setattr(module, "STRIP", strip)
    seen = np.ones(photograph.shape[:2], bool)
    seen[:60, :70] = not hidden
    places, widest, share = sharpness(photograph, seen)
    wanted, wanted_share = by_filters(photograph, seen)
    assert np.allclose(places, wanted.clip(0, 1), atol=1e-5) and share == pytest.approx(wanted_share)
    contrast = ndimage.maximum_filter(photograph, (9, 9, 1)) - ndimage.minimum_filter(photograph, (9, 9, 1))
    assert np.abs(widest - contrast.max(-1)).max() < 2 / STEPS


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_tiny_pictures_have_a_sharpness(size):
    places, widest, share = sharpness(np.random.default_rng(0).random((*size, 3), np.float32), np.ones(size, bool))
    assert places.shape == widest.shape == size and 0 <= share <= 1


@pytest.mark.parametrize("reach", [1, 3, 4])
def test_the_largest_within_reach(reach):
    values = np.random.default_rng(0).integers(-2040, 2040, (30, 25), dtype=np.int16)
    inside = slice(reach, -reach)
    assert np.array_equal(largest(values, reach), ndimage.maximum_filter(values, 2 * reach + 1)[inside, inside])


@pytest.mark.parametrize("sigma", [0.0, 2.0, 8.0])
def test_noise_is_measured_beside_structure(photograph, sigma):
    smooth = ndimage.gaussian_filter(photograph[..., 1], 3) * 180 + 40
    noisy = smooth + np.random.default_rng(0).normal(0, sigma, smooth.shape)
    assert noise(np.rint(noisy * 8).astype(np.int16)) / 8 == pytest.approx(sigma, rel=0.1, abs=0.15)


def test_blur_in_one_direction_is_enough_to_be_soft(photograph):
    seen = np.ones(photograph.shape[:2], bool)
    _, _, sharp = sharpness(photograph, seen)
    for axis in (0, 1):
        places, _, share = sharpness(ndimage.uniform_filter1d(photograph, 9, axis=axis), seen)
        assert share < 0.1 < 0.3 < sharp and (places > 0.4).mean() < 0.01
