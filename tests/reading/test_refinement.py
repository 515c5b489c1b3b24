"""Kernel and picture improve each other in the light in which the photograph was blurred."""

from types import SimpleNamespace

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff.blur.camera import to_display, to_light
from bd_diff.blur.kernels import blur, delta, line, shake
from bd_diff.data.images import read_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.metrics import psnr
from bd_diff.reading import refinement
from bd_diff.reading.confidence import contradict, distances, shares
from bd_diff.reading.kernel_search import clean, search_kernels
from bd_diff.reading.refinement import in_both, refine, refine_in_their_light, seen, unclipped
from bd_diff.restore import load

KERNEL = shake(torch.tensor([14.0]), torch.Generator().manual_seed(4))
INSIDE = (..., slice(16, -16), slice(16, -16))


def blurred(image, linear):
    """An image in [0, 1], 16 pixels less at every border, blurred in linear light or in display values."""
    if not linear:
        return blur(image, KERNEL, mode="valid")
    return to_display(blur(to_light(image, "srgb"), KERNEL, mode="valid"), "srgb")


@pytest.fixture(scope="module")
def scene():
    return procedural_image(288, torch.Generator().manual_seed(3))[None]


@pytest.fixture
def ideal(scene):
    """A pipeline that makes the sharp scene of all photographs."""
    return SimpleNamespace(
        config=SimpleNamespace(refinements=1),
        deblur_window=lambda pixels, *_: (scene[INSIDE] * 2 - 1).expand_as(pixels),
    )


@pytest.mark.parametrize("linear", [False, True])
def test_a_sharp_picture_gives_the_kernel(ideal, scene, linear):
    starts = torch.cat([line(torch.tensor([9.0]), torch.tensor([0.3])), KERNEL.flip(1, 2)])
    found, misled = (refine(ideal, blurred(scene, linear), starts, light) for light in (linear, not linear))
    assert found.shape == (2, 33, 33) and torch.allclose(found.sum((1, 2)), torch.ones(2))
    assert ((found - KERNEL).abs().sum((1, 2)) < 0.4).all() and ((starts - KERNEL).abs().sum((1, 2)) > 1).all()
    assert (distances(KERNEL, found) < 0.001).all()
    assert not linear or (distances(KERNEL, misled) > 2 * distances(KERNEL, found)).all()


def test_light_is_seen_as_it_came_in(scene):
    assert torch.equal(seen(scene[:, :1], False), scene[:, :1])
    assert torch.allclose(seen(scene[:, :1], True), to_light(scene[:, :1], "srgb"))


@pytest.mark.parametrize("linear", [False, True])
def test_kernels_are_refined_in_the_light_in_which_the_photograph_was_blurred(ideal, scene, linear, monkeypatch):
    window, asked = blurred(scene, linear), []
    monkeypatch.setattr(refinement, "search_kernels", lambda *given, rival: asked.append(rival))
    starts = torch.cat([line(torch.tensor([9.0]), torch.tensor([0.3])), KERNEL])
    better, *both = in_both(ideal, window, KERNEL)
    assert better > 1 if linear else better < -1
    assert all(
        torch.equal(one, refine(ideal, window, KERNEL, light)) for one, light in zip(both, (False, True), strict=True)
    )
    kernels, lit = refine_in_their_light(ideal, window, starts)
    assert lit == linear and len(asked) == linear
    assert torch.allclose(kernels, refine(ideal, window, starts.flip(0) if linear else starts, linear), atol=1e-6)


def test_what_the_search_finds_in_light_takes_part_there(ideal, scene, monkeypatch):
    window, wrong = blurred(scene, True), line(torch.tensor([9.0]), torch.tensor([0.3]))
    monkeypatch.setattr(refinement, "search_kernels", lambda *given, rival: KERNEL[None])
    given, refine_all = [], refinement.refine
    monkeypatch.setattr(refinement, "refine", lambda *asked: given.append(asked[2]) or refine_all(*asked))
    kernels, lit = refine_in_their_light(ideal, window, wrong)
    assert lit and torch.equal(kernels, torch.cat([refine(ideal, window, one, True) for one in (KERNEL, wrong)]))
    # Both in both lights to tell the light by; what is known by then is not refined again.
    assert torch.equal(torch.cat(given), torch.cat([wrong, wrong, KERNEL, KERNEL, wrong]))
    monkeypatch.setattr(refinement, "LIT", 9.0)
    kernels, lit = refine_in_their_light(ideal, window, wrong)
    assert not lit and torch.equal(kernels, refine(ideal, window, wrong))


def test_no_edges_are_taken_near_clipped_pixels(ideal, scene):
    window = 0.9 * scene[INSIDE]
    window[..., 100, 100] = 1
    visible = unclipped(window)
    hidden = (~visible).nonzero()[:, 2:]
    assert hidden.amin(0).tolist() == [90, 90] and hidden.amax(0).tolist() == [110, 110]
    assert unclipped(torch.ones(1, 3, 64, 64)).all()  # a page: all of it would be hidden


def test_streaks_of_lamps_do_not_mislead(ideal, scene, monkeypatch):
    light = to_light(0.8 * scene, "srgb")
    shown = light.clone()
    for row, column in ((60, 70), (200, 90), (130, 220)):
        light[..., row : row + 6, column : column + 6], shown[..., row : row + 6, column : column + 6] = 20, 1
    photograph = to_display(blur(light, KERNEL, mode="valid").clamp(0, 1), "srgb")
    sharp = to_display(shown[INSIDE], "srgb") * 2 - 1
    ideal.deblur_window = lambda pixels, *_: sharp.expand_as(pixels)
    found = refine(ideal, photograph, KERNEL, linear=True)
    monkeypatch.setattr(refinement, "unclipped", lambda windows: torch.ones_like(windows[:, :1], dtype=torch.bool))
    misled = refine(ideal, photograph, KERNEL, linear=True)
    assert distances(KERNEL, found) < 0.3 * distances(KERNEL, misled)


@pytest.mark.parametrize("linear", [False, True])
def test_the_shipped_model_tells_the_light_of_a_shake(linear):
    pipeline = load(device="cpu").pipeline
    image = to_tensor(read_image(ROOT / "bd_diff/assets/sharp/gb82_city.webp"))
    top, left = ((side - 288) // 2 for side in image.shape[1:])
    sharp = image[None, :, top : top + 288, left : left + 288]
    blurry = blurred(sharp, linear)
    output = pipeline(blurry, output_type="pt")
    reading = pipeline.read_at_scales(blurry * 2 - 1)
    assert reading.linear == linear and distances(KERNEL, reading.kernels) < 0.01
    assert psnr(output.images, sharp[INSIDE]) > psnr(blurry, sharp[INSIDE]) + 4


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_picture_of_one_colour_stays_one(value):
    colour = torch.full((1, 3, 192, 192), value)
    assert search_kernels(colour[:, :1]).isfinite().all()
    result = load(device="cpu").pipeline(colour, output_type="pt").images
    assert torch.allclose(result, colour, atol=2 / 255)


def test_what_holds_nothing_is_no_blur():
    cleaned = clean(torch.stack([torch.zeros(33, 33), KERNEL[0]]), torch.full((2,), 0.05))
    assert torch.equal(cleaned[:1], delta(1)) and not torch.equal(cleaned[1:], delta(1))
    nothing = torch.zeros(3)
    assert torch.equal(shares(nothing, [torch.full((1, 1, 64, 64), 0.5)]), nothing)
    assert not contradict(delta(1), delta(1), (nothing[:1], nothing[:1])).any()
