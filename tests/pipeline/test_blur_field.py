"""Blur that differs over the photograph, in the pipeline."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import delta, gaussian
from bd_diff.pipeline import reading_pipeline
from bd_diff.reading.blur_reading import BlurReading

SOFT, SOFTER = gaussian(torch.tensor([1.0])), gaussian(torch.tensor([2.0]))
HALVES = torch.eye(2).view(2, 1, 2)
SHARP_MIDDLE = BlurField(torch.cat([delta(1), SOFTER]), torch.tensor([[[0.0, 1, 0]], [[1, 0, 1]]]))


@pytest.fixture
def photographs():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def run(pipeline, images, **settings):
    generator = [torch.Generator().manual_seed(0) for _ in images]
    return pipeline(images, output_type="pt", generator=generator, **settings)


def test_equal_kernels_give_what_one_kernel_gives(tiny_pipeline, photographs):
    field = BlurField(torch.cat([SOFT, SOFT]), HALVES)
    one, many = (run(tiny_pipeline, photographs, kernels=blur) for blur in (SOFT, field))
    assert (one.images - many.images).abs().mean() < 2e-3
    assert torch.allclose(one.kernels, many.kernels, atol=1e-6)


def test_each_kernel_counts_where_its_share_is(tiny_pipeline, photographs):
    field = BlurField(torch.cat([SOFT, SOFTER]), HALVES)
    mixed, soft, softer = (run(tiny_pipeline, photographs, kernels=blur).images for blur in (field, SOFT, SOFTER))
    for part, near, far in ((slice(0, 16), soft, softer), (slice(80, 96), softer, soft)):
        missed = [(mixed - other)[..., part].abs().mean() for other in (near, far)]
        assert missed[0] < 0.5 * missed[1]


def test_a_large_photograph_in_tiles_has_the_same_field(tiny_pipeline):
    image, field = torch.rand(1, 3, 96, 272), BlurField(torch.cat([SOFT, SOFTER]), HALVES)
    whole, tiled = (run(tiny_pipeline, image, kernels=field, tile=tile).images for tile in (0, 192))
    assert (whole - tiled).abs().mean() < 0.02


@pytest.mark.parametrize("field", [BlurField(torch.cat([SOFT, SOFTER]), HALVES), SHARP_MIDDLE])
def test_a_photograph_whose_blur_differs_is_restored_by_its_field_and_the_output_says_so(
    tiny_pipeline, photographs, monkeypatch, field
):
    doubted = torch.zeros(2, dtype=torch.bool)
    read, blurs = tiny_pipeline.read_blur, [field, SOFT]

    def reading(pixels, fast):
        found = read(pixels)
        found.doubtful = doubted
        return found

    monkeypatch.setattr(tiny_pipeline, "read_at_scales", reading)
    monkeypatch.setattr(reading_pipeline, "read_field", lambda pipeline, pixels, reading, differs: blurs.pop(0))
    monkeypatch.setattr(reading_pipeline, "where_it_is", lambda pipeline, pixels, blur, scale, in_light: blur)
    output = run(tiny_pipeline, photographs)
    assert output.differs.tolist() == [True, False]
    assert output.blur[0].startswith("blur differs over the picture, ") and output.blur[1] == "blur of 5 x 5 pixels"
    assert torch.allclose(output.kernels[0], field.middle) and torch.allclose(output.kernels[1], SOFT[0])
    for index, blur in enumerate((field, SOFT)):
        alone = run(tiny_pipeline, photographs[index, None], kernels=blur).images
        assert torch.allclose(output.images[index], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("differs", "lens", "turned", "asked"),
    [(True, False, False, 1), (True, True, False, 0), (False, False, False, 0), (True, False, True, 0)],
)
def test_where_blur_differs_things_are_looked_for_but_not_with_a_lens_and_a_camera_that_turned_explains_all(
    tiny_pipeline, photographs, monkeypatch, differs, lens, turned, asked
):
    things: list = []
    poses = BlurField(torch.cat([SOFT, SOFTER]), HALVES)

    def around(pipeline, pixels, reading, contradicted):
        assert not contradicted  # the corners left the reading
        things.append(reading)
        return reading, SHARP_MIDDLE

    monkeypatch.setattr(reading_pipeline, "stood_still", lambda pipeline, pixels, reading: False)
    monkeypatch.setattr(reading_pipeline, "ask_corners", lambda pipeline, pixels, reading: (reading, differs))
    monkeypatch.setattr(reading_pipeline, "around_things", around)
    monkeypatch.setattr(reading_pipeline, "read_field", lambda *_: poses if turned else SOFT)
    monkeypatch.setattr(reading_pipeline, "where_it_is", lambda pipeline, pixels, blur, scale, in_light: blur)
    config = tiny_pipeline.config | {"lens": [[1.0]] if lens else None}
    monkeypatch.setattr(type(tiny_pipeline), "config", property(lambda pipeline: SimpleNamespace(**config)))
    reading = BlurReading(SOFT, doubtful=torch.tensor([False]))
    read, (blur,) = tiny_pipeline.read_fields(photographs[:1] * 2 - 1, reading)
    assert len(things) == asked
    if turned:
        assert blur is poses
    else:
        assert isinstance(blur, BlurField) == bool(asked)
        assert torch.equal(read.kernels[0], SHARP_MIDDLE.middle if asked else SOFT[0])


def test_blur_that_is_not_searched_is_not_said_to_differ(tiny_pipeline, photographs):
    assert run(tiny_pipeline, photographs, fast=True).differs is None
