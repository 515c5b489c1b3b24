"""Blur wider than the networks read: found in a smaller photograph, carried to its own size."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.kernels import blur, delta, gaussian, same_size, shake
from bd_diff.data.procedural import procedural_image
from bd_diff.reading import pyramid
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.kernel_search import resize_kernels
from bd_diff.reading.pyramid import carry, read_at_scales, reduced

WIDE = shake(torch.tensor([44.0]), torch.Generator().manual_seed(5), 65)


def reading(kernels, doubtful=False, mark=0.0):
    return BlurReading(
        torch.full((1, 2, 3), mark), torch.zeros(1, 2, 3), kernels, torch.ones(1), torch.tensor([doubtful])
    )


@pytest.fixture(scope="module")
def scene():
    """A sharp scene in [-1, 1] and the same shaken by 44 pixels."""
    sharp = procedural_image(500, torch.Generator().manual_seed(3))[None] * 2 - 1
    return sharp[..., 32:-32, 32:-32], blur(sharp, WIDE, mode="valid")


def ideal(sharp):
    """A pipeline that deblurs windows of this scene perfectly, found by their size: the whole scene or its half."""

    def deblur_window(windows, kernels, features):
        scale = windows.shape[-1] / sharp.shape[-1]
        return (reduced(sharp, scale) if scale < 1 else sharp).expand_as(windows)

    return SimpleNamespace(config=SimpleNamespace(refinements=1), deblur_window=deblur_window)


def similarity(one, other):
    return float(torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)))


def test_a_coarse_kernel_is_carried_up_and_improved(scene):
    sharp, blurry = scene
    coarse = resize_kernels(WIDE, 33, 0.5)
    carried = carry(ideal(sharp), blurry, reading(coarse), coarse, 0.5)
    assert carried.kernels.shape == (1, 65, 65)
    assert similarity(carried.kernels, WIDE) > 0.9 > similarity(resize_kernels(coarse, 65, 2.0), WIDE)


def test_what_explains_nothing_is_not_carried(scene):
    sharp, _ = scene
    coarse = resize_kernels(WIDE, 33, 0.5)
    unhelpful = SimpleNamespace(config=SimpleNamespace(refinements=0))
    assert carry(unhelpful, sharp, reading(coarse), coarse, 0.5) is None


@pytest.mark.parametrize(
    ("kernels", "doubtful", "size"),
    [
        (resize_kernels(WIDE, 33, 0.5), False, 65),
        (resize_kernels(WIDE, 33, 0.5), True, 33),
        (gaussian(torch.tensor([1.0])), False, 33),
    ],
)
def test_wide_blur_without_doubt_is_carried_and_other_blur_is_read_at_full_size(
    scene, monkeypatch, kernels, doubtful, size
):
    sharp, blurry = scene
    asked = []

    def search_blur(pipeline, pixels):
        asked.append(pixels.shape[-1])
        return reading(kernels if len(asked) == 1 else delta(1), doubtful and len(asked) == 1, mark=len(asked))

    monkeypatch.setattr(pyramid, "search_blur", search_blur)
    found = read_at_scales(ideal(sharp), blurry)
    width = blurry.shape[-1]
    assert asked == ([width // 2] if size == 65 else [width // 2, width])  # a quarter would be too small to search
    assert found.kernels.shape[-1] == size and found.features[0, 0, 0] == len(asked)


def test_small_photographs_are_read_once(monkeypatch):
    asked = []
    monkeypatch.setattr(pyramid, "search_blur", lambda pipeline, pixels: asked.append(pixels.shape) or "read")
    assert read_at_scales(None, torch.zeros(1, 3, 383, 500)) == "read" and len(asked) == 1


def test_kernels_of_different_sizes_get_margins():
    small, large = gaussian(torch.tensor([1.0])), WIDE
    grown, same = same_size([small, large])
    assert grown.shape == same.shape == (1, 65, 65) and torch.equal(same, large)
    assert torch.equal(grown[:, 16:-16, 16:-16], small) and float(grown.sum()) == pytest.approx(1)
