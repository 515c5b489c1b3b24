"""Blur that is read at several scales, and used where one fits."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.convolution import reaches
from bd_diff.blur.kernels import blur, delta, gaussian, line, same_size, shake
from bd_diff.data.procedural import procedural_image
from bd_diff.reading import pyramid
from bd_diff.reading.blur_reading import BlurReading, stack
from bd_diff.reading.kernel_search import resize_kernels
from bd_diff.reading.pyramid import at_full_size, carry, enlarged_change, kernel_of, read_at_scales, reduced, trimmed
from bd_diff.reading.verdict import NOTHING, extents

WIDE = shake(torch.tensor([44.0]), torch.Generator().manual_seed(5), 65)


def reading(kernels, doubtful=False, mark=0.0):
    return BlurReading(kernels, torch.full((1, 2, 3), mark), torch.ones(1), torch.tensor([doubtful]))


@pytest.fixture(scope="module")
def scene():
    """A sharp scene in [-1, 1] and the same shaken by 44 pixels."""
    sharp = procedural_image(500, torch.Generator().manual_seed(3))[None] * 2 - 1
    return sharp[..., 32:-32, 32:-32], blur(sharp, WIDE, mode="valid")


def ideal(sharp):
    """A pipeline that deblurs windows of this scene perfectly, found by their size: the whole scene or its half."""

    def deblur_window(windows, kernels):
        scale = windows.shape[-1] / sharp.shape[-1]
        return (reduced(sharp, scale) if scale < 1 else sharp).expand_as(windows)

    return SimpleNamespace(config=SimpleNamespace(refinements=1), deblur_window=deblur_window)


def similarity(one, other):
    one, other = same_size([one, other])
    return float(torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)))


def test_a_coarse_kernel_is_carried_up_and_improved(scene):
    sharp, blurry = scene
    coarse = resize_kernels(WIDE, 33, 0.5)
    carried = carry(ideal(sharp), blurry, reading(coarse), 0.5)
    assert carried.kernels.shape[-1] == 2 * reaches(carried.kernels).max() + 1 > 33
    assert similarity(carried.kernels, WIDE) > 0.9 > similarity(resize_kernels(coarse, 65, 2.0), WIDE)


@pytest.mark.parametrize("value", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(300, 400), (256, 256), (100, 900)])
def test_a_picture_of_one_colour_shows_no_blur(shipped, value, shape):
    pixels = torch.full((1, 3, *shape), value)
    output = shipped(pixels, output_type="pt")
    assert output.blur == [NOTHING] and torch.equal(output.images, pixels)


@pytest.mark.parametrize(
    "size, off, left", [(65, 0, 33), (65, 21, 43), (129, 0, 33), (33, 3, 33), (65, 32, 65), (17, 3, 17)]
)
def test_margins_of_zeros_are_trimmed(size, off, left):
    kernel = torch.zeros(1, size, size)
    kernel[0, size // 2 - off, size // 2] = 1
    trimmed_kernel = trimmed(kernel)
    assert trimmed_kernel.shape == (1, left, left) and trimmed_kernel[0, left // 2 - off, left // 2] == 1


def test_what_explains_nothing_is_not_carried(scene):
    sharp, _ = scene
    unhelpful = SimpleNamespace(config=SimpleNamespace(refinements=0))
    assert carry(unhelpful, sharp, reading(resize_kernels(WIDE, 33, 0.5)), 0.5) is None


def scale_of(found):
    return 1 if found.scale is None else float(found.scale)


def reader(kernel, width, limit=19, finest=1.0):
    """A pipeline that reads a kernel, seen in photographs of some width, at scales where it reaches at most `limit`
    pixels and that are not above `finest`: beyond, it sees no blur.
    """

    def read_blur(pixels):
        scale = pixels.shape[-1] / width
        seen = resize_kernels(kernel, 33, scale) if scale < 1 else kernel[:, 16:-16, 16:-16]
        fits = max(extents(seen[0])) <= limit and scale <= finest + 0.01
        return BlurReading(seen if fits else delta(1))

    return SimpleNamespace(read_blur=read_blur)


LINE = line(torch.tensor([41.0]), torch.tensor([0.0]), size=65)


@pytest.mark.parametrize(
    ("kernel", "finest", "scale"),
    [
        (LINE, 1.0, 0.354),  # at half of the size it is wider than is read
        (line(torch.tensor([15.0]), torch.tensor([0.0]), size=65), 1.0, 1.0),
        (line(torch.tensor([15.0]), torch.tensor([0.0]), size=65), 0.5, 0.5),  # noise hides it at the full size
        (delta(1, 65), 1.0, 1.0),
    ],
)
def test_blur_is_read_at_the_finest_scale_that_agrees_with_the_coarser_ones(kernel, finest, scale):
    found = read_at_scales(reader(kernel, 800, finest=finest), torch.rand(1, 3, 600, 800), search=False)
    assert scale_of(found) == pytest.approx(scale, abs=0.01)
    whole, expected = at_full_size(found), max(extents(kernel[0]))
    assert max(extents(whole[0])) == pytest.approx(expected, rel=0.15)
    assert float(whole.sum()) == pytest.approx(1)


def test_nothing_is_read_beyond_the_first_scale_at_which_a_wide_blur_does_not_fit():
    """Half of the time of a large photograph's readings is that of its full size."""
    asked, of_line = [], reader(LINE, 800)

    def read_blur(pixels):
        asked.append(pixels.shape[-1])
        return of_line.read_blur(pixels)

    found = read_at_scales(SimpleNamespace(read_blur=read_blur), torch.rand(1, 3, 600, 800), search=False)
    assert scale_of(found) == pytest.approx(0.354, abs=0.01) and max(asked) == 400


def test_scales_that_disagree_say_nothing(monkeypatch):
    """A reader that finds the same kernel at every scale is wrong at all but one: the whole image decides."""
    fixed = BlurReading(line(torch.tensor([17.0]), torch.tensor([0.5])))
    always = SimpleNamespace(read_blur=lambda pixels: fixed)
    assert read_at_scales(always, torch.rand(1, 3, 600, 800), search=False).scale is None
    monkeypatch.setattr(
        pyramid,
        "search_windows",
        lambda pipeline, pixels, free=None: reading(WIDE, doubtful=True, mark=pixels.shape[-1]),
    )
    assert read_at_scales(always, torch.rand(1, 3, 600, 800)).tokens[0, 0, 0] == 800


@pytest.mark.parametrize(("trust", "carried"), [(0.9, True), (0.1, False)])
def test_a_wide_shake_is_carried_to_full_size_and_other_wide_blur_stays_at_its_scale(
    scene, monkeypatch, trust, carried
):
    sharp, blurry = scene

    def search_blur(pipeline, pixels, free=None):
        seen = reading(resize_kernels(WIDE, 33, pixels.shape[-1] / blurry.shape[-1]))
        seen.search_confidence = torch.tensor([trust])
        return seen

    monkeypatch.setattr(pyramid, "search_windows", search_blur)
    thick = blur(WIDE[:, None], gaussian(torch.tensor([2.0])))[:, 0]  # scales of what is thin differ by their sampling
    pipeline = SimpleNamespace(**vars(ideal(sharp)), **vars(reader(thick, blurry.shape[-1], limit=27)))
    found = read_at_scales(pipeline, blurry)
    assert (found.kernels.shape[-1] > 33) is carried and not found.doubtful
    assert scale_of(found) == pytest.approx(1 if carried else 0.5, abs=0.01)
    assert similarity(*same_size([at_full_size(found), WIDE])) > 0.6


@pytest.mark.parametrize("right", [True, False])
def test_a_shake_smaller_than_all_scales_say_is_believed_where_it_explains_more(scene, monkeypatch, right):
    small = shake(torch.tensor([9.0]), torch.Generator().manual_seed(6))
    blurry = blur(scene[0], small)
    found = reading(small if right else line(torch.tensor([9.0]), torch.tensor([1.0])))
    found.search_confidence = torch.tensor([0.9])
    monkeypatch.setattr(pyramid, "search_windows", lambda *_, **__: found)
    monkeypatch.setattr(pyramid, "refuted", lambda *_: False)
    wide = reader(line(torch.tensor([17.0]), torch.tensor([0.0]), size=65), blurry.shape[-1], limit=33)
    read = read_at_scales(wide, blurry)
    assert torch.equal(kernel_of(read), found.kernels) == right


def test_readings_with_and_without_scale_or_doubt_are_stacked():
    plain, doubted = reading(delta(1)), reading(WIDE, doubtful=True)
    plain.doubtful, doubted.scale = None, torch.tensor([0.5])
    both = stack([plain, doubted])
    assert both.scale.tolist() == [1, 0.5] and both.doubtful.tolist() == [False, True]
    assert both.kernels.shape == (2, 65, 65) and stack([plain]).doubtful is None


def test_small_photographs_are_read_once():
    asked = []

    def read_blur(pixels):
        asked.append(pixels.shape)
        return reading(delta(1))

    read_at_scales(SimpleNamespace(read_blur=read_blur), torch.rand(1, 3, 130, 500))
    assert asked == [(1, 3, 130, 500)]


def test_an_enlarged_change_keeps_finer_detail():
    photograph = torch.zeros(1, 3, 64, 64)
    photograph[..., ::2, :] = 0.5  # lines across the motion, finer than the smaller image shows
    small = reduced(photograph, 0.5)
    changed = enlarged_change(small, small + 0.25, photograph)
    assert torch.allclose(changed, photograph + 0.25, atol=1e-5)


def test_smaller_images_stay_in_range():
    images = (torch.rand(1, 3, 97, 131, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    smaller = reduced(images, 0.7071)
    assert smaller.min() >= 0 and smaller.max() <= 1 and smaller.shape[-2:] == (69, 93)


def test_kernels_of_different_sizes_get_margins():
    small, large = gaussian(torch.tensor([1.0])), WIDE
    grown, same = same_size([small, large])
    assert grown.shape == same.shape == (1, 65, 65) and torch.equal(same, large)
    assert torch.equal(grown[:, 16:-16, 16:-16], small) and float(grown.sum()) == pytest.approx(1)


def test_a_blur_that_all_scales_see_and_the_photograph_refutes_is_not_believed(scene):
    sharp, _ = scene
    pipeline = reader(line(torch.tensor([41.0]), torch.tensor([0.0]), size=65), sharp.shape[-1])
    assert read_at_scales(pipeline, sharp, search=False).scale is None
    blurry = blur(sharp, line(torch.tensor([41.0]), torch.tensor([0.0]), size=65))
    assert scale_of(read_at_scales(pipeline, blurry, search=False)) < 1
