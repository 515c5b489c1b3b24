"""A thing that has not the blur of the photograph around it is left as it is."""

from types import SimpleNamespace

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import blur, delta, gaussian, line, shake, shape_of
from bd_diff.data.images import read_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.reading import refuted
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.differing_blur import Places
from bd_diff.reading.refuted import missed, unblurred, where_it_is

LEVEL, UPRIGHT = (line(torch.tensor([13.0]), torch.tensor([angle])) for angle in (0.2, 1.7))
EVERYWHERE = (slice(None), slice(None))


@pytest.fixture
def reader():
    """A pipeline that deblurs by Wiener deconvolution, the safest of them, and sees a line in every window."""
    return SimpleNamespace(
        deblur_by=lambda pixels, known: known.guesses(pixels)[:, 3].clamp(-1, 1),
        read_blur=lambda pixels: BlurReading(LEVEL.expand(len(pixels), -1, -1)),
        config=SimpleNamespace(linear_light=False),
    )


@pytest.fixture
def sharp():
    return procedural_image(288, torch.Generator().manual_seed(0), "leaves")[None] * 2 - 1


def with_a_still_half(sharp, kernels):
    pixels = blur(sharp, kernels)
    pixels[..., 144:] = sharp[..., 144:]
    return pixels


def test_what_stands_still_in_a_photograph_that_moved_has_no_blur(reader, sharp):
    found = where_it_is(reader, with_a_still_half(sharp, LEVEL), LEVEL)
    assert isinstance(found, BlurField) and torch.equal(found.kernels, torch.cat([LEVEL, delta(1)]))
    shares = found.shares_in(288, 288, *EVERYWHERE)
    assert torch.allclose(shares.sum(0), torch.ones(288, 288))
    assert shares[1, :, :96].mean() < 0.02 and shares[1, :, 192:].mean() > 0.8


def test_a_window_in_which_there_is_no_blur_is_left_as_it_is(sharp):
    pipeline = BDDiffPipeline.from_pretrained()
    pixels = blur(sharp, LEVEL)
    assert not unblurred(pipeline, pixels, LEVEL).any() and unblurred(pipeline, sharp, LEVEL).all()
    faint = 0.05 * with_a_still_half(sharp, LEVEL)  # too faint to be missed
    found = where_it_is(pipeline, faint, LEVEL)
    shares = found.shares_in(288, 288, *EVERYWHERE)
    assert torch.allclose(shares.sum(0), torch.ones(288, 288))
    assert shares[1, :, :48].mean() < 0.02 and shares[1, :, 240:].mean() > 0.98


def test_a_window_of_much_less_blur_than_the_photograph_is_left_as_it_is(reader):
    halves = torch.ones(1, 3, 288, 480) * torch.where(torch.arange(480) < 240, -1.0, 1.0)
    soft, softer, wide = gaussian(torch.tensor([1.0, 1.4, 2.0]))[:, None].unbind(0)
    reader.read_blur = lambda pixels: BlurReading(torch.where(pixels.mean((1, 2, 3))[:, None, None] > 0, softer, wide))
    assert unblurred(reader, halves, soft).sum() == unblurred(reader, halves, (softer + wide) / 2).sum() == 0
    assert unblurred(reader, halves, wide)[0].tolist() == 3 * [[0, 0, 0, 1, 1]]
    field = BlurField(torch.cat([wide, softer]), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))  # each where it is
    assert unblurred(reader, halves, field).sum() == 0
    swapped = BlurField(torch.cat([softer, wide]), field.shares)
    assert unblurred(reader, halves, swapped)[0].tolist() == 3 * [[0, 0, 0, 1, 1]]
    assert unblurred(reader, halves, line(torch.tensor([25.0]), torch.tensor([0.2]))).sum() == 0  # nothing is known


@pytest.mark.parametrize("extent, scale", [(9.0, 1.0), (13.0, 0.5)])
def test_windows_are_read_at_full_size_where_the_blur_fits(reader, sharp, extent, scale, monkeypatch):
    seen = []
    monkeypatch.setattr(refuted, "unblurred", lambda pipeline, *given: seen.extend(given) or torch.zeros(1, 1, 1))
    kernels = line(torch.tensor([extent]), torch.tensor([0.2]))
    large = torch.nn.functional.interpolate(sharp, scale_factor=2, mode="bilinear")
    where_it_is(reader, large, kernels, 0.5)
    assert seen[0].shape[-1] == scale * large.shape[-1]
    assert torch.allclose(shape_of(seen[1][0])[0], scale / 0.5 * shape_of(kernels[0])[0], rtol=0.05)


@pytest.mark.parametrize("extent", [14.0, 40.0])
def test_a_shake_of_any_width_stays_nearly_everywhere(extent):
    pipeline = BDDiffPipeline.from_pretrained()
    kernels = shake(torch.tensor([extent]), torch.Generator().manual_seed(2), 65 if extent > 30 else 33)
    image = to_tensor(read_image(ROOT / "assets/sharp/gb82_city.webp"))[None, :, :480, :480]
    found = where_it_is(pipeline, blur(image * 2 - 1, kernels), kernels)
    assert found is kernels or found.shares[-1].mean() < 0.1


def test_a_blur_that_is_everywhere_stays_as_it_is(reader, sharp):
    for kernels in (LEVEL, gaussian(torch.tensor([1.8]))):
        noisy = blur(sharp, kernels) + torch.randn(sharp.shape, generator=torch.Generator().manual_seed(1)) * 4 / 255
        assert where_it_is(reader, noisy, kernels) is kernels


@pytest.mark.parametrize(("cells", "told"), [(0, False), (1, False), (2, True)])
def test_a_blur_that_hardly_any_place_refutes_is_not_said_to_differ(reader, sharp, monkeypatch, cells, told):
    left = torch.full((1, 1, 18, 18), 0.1)
    left[..., 3, 3 : 3 + cells] = 1.0
    monkeypatch.setattr(refuted, "missed", lambda *given: left)
    monkeypatch.setattr(refuted, "unblurred", lambda *given: torch.zeros(1, 3, 3))
    assert isinstance(where_it_is(reader, blur(sharp, LEVEL), LEVEL), BlurField) is told


def test_where_there_is_no_detail_nothing_is_refuted(reader):
    flat = torch.zeros(1, 3, 96, 128)
    assert torch.allclose(missed(reader, flat, LEVEL), torch.full((1, 1, 6, 8), 0.5))
    assert where_it_is(reader, flat, LEVEL) is LEVEL


def test_of_a_field_each_kernel_keeps_its_part_of_what_is_blurred(reader, sharp):
    pixels = with_a_still_half(sharp, LEVEL)
    pixels[..., :144, :144] = blur(sharp, UPRIGHT)[..., :144, :144]
    upper = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    found = where_it_is(reader, pixels, BlurField(torch.cat([UPRIGHT, LEVEL]), upper))
    shares = found.shares_in(288, 288, *EVERYWHERE)
    assert torch.allclose(shares.sum(0), torch.ones(288, 288), atol=1e-5)
    for index, part in enumerate([(slice(0, 80), slice(0, 96)), (slice(192, 288), slice(0, 96)), EVERYWHERE]):
        assert shares[index][part].mean() > (0.4 if index == 2 else 0.8)


def test_in_large_photographs_it_is_seen_in_a_smaller_one_and_small_ones_stay_as_they_are(reader, sharp, monkeypatch):
    monkeypatch.setattr(refuted, "LONGEST", 200)
    found = where_it_is(reader, with_a_still_half(sharp, LEVEL), LEVEL)
    assert isinstance(found, BlurField) and torch.equal(found.kernels, torch.cat([LEVEL, delta(1)]))
    shares = found.shares_in(288, 288, *EVERYWHERE)
    assert shares[1, :, :96].mean() < 0.02 and shares[1, :, 192:].mean() > 0.8
    assert where_it_is(reader, sharp[..., :256, :256], LEVEL) is LEVEL


def test_kernels_of_a_smaller_image_are_tried_on_that(reader, sharp):
    large = torch.nn.functional.interpolate(with_a_still_half(sharp, LEVEL), scale_factor=2, mode="bilinear")
    shares = where_it_is(reader, large, LEVEL, 0.5).shares_in(288, 288, *EVERYWHERE)
    assert shares[1, :, :96].mean() < 0.02 and shares[1, :, 192:].mean() > 0.8


@pytest.mark.parametrize(("height", "width"), [(200, 1600), (1900, 300), (200, 900), (192, 288)])
def test_panoramas_have_windows(reader, height, width):
    pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    places = Places.over(height, width)
    windows = places.cut(pixels, range(places.count))
    assert len(windows) == places.rows * places.columns >= 3 and min(places.starts()) >= (0, 0)
    assert where_it_is(reader, pixels, LEVEL) is not None
