"""Photographs whose blur was read at a smaller scale are restored there."""

from dataclasses import replace

import pytest
import torch

from bd_diff.blur.kernels import gaussian
from bd_diff.pipeline import reading_pipeline
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.pyramid import reduced


@pytest.fixture
def reading_at(tiny_pipeline, monkeypatch):
    """A function that makes the pipeline read the blur of photographs at given scales, the first one's first."""

    def read(*scales):
        waiting = []

        def read_at_scales(pipeline, pixels, search):
            waiting.extend([] if waiting else scales)
            scale = waiting.pop(0)
            reading = pipeline.read_blur(reduced(pixels, scale))
            return replace(reading, kernels=gaussian(torch.tensor([1.5])), scale=torch.tensor([scale]))

        monkeypatch.setattr(reading_pipeline, "read_at_scales", read_at_scales)
        return tiny_pipeline

    return read


@pytest.fixture
def photographs():
    return torch.rand(2, 3, 120, 90, generator=torch.Generator().manual_seed(0))


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def test_a_batch_of_two_scales_equals_its_singles(reading_at, photographs):
    batch = reading_at(0.5, 1.0)(photographs, output_type="pt", generator=seeds(1, 2))
    for index, scale in enumerate((0.5, 1.0)):
        single = reading_at(scale)(photographs[index, None], output_type="pt", generator=seeds(index + 1))
        assert torch.allclose(single.images[0], batch.images[index], atol=1e-6)
    assert batch.kernels.shape == (2, 65, 65)  # as the photographs themselves have them


def test_the_change_to_the_smaller_photograph_is_enlarged(reading_at, photographs):
    photograph = photographs[:1]
    small = reduced(photograph, 0.5)
    restored = reading_at(0.5)(photograph, output_type="pt", generator=seeds(3)).images
    pipeline = reading_at(1.0)
    told = pipeline.tell(BlurReading(gaussian(torch.tensor([1.5])))).kernels
    alone = pipeline(small, kernels=told, output_type="pt", generator=seeds(3)).images
    change = torch.nn.functional.interpolate(alone - small, size=(120, 90), mode="bicubic")
    assert torch.allclose(restored, (photograph + change).clamp(0, 1), atol=1e-6)


def test_nothing_of_the_result_is_the_photograph_itself(reading_at, photographs):
    result = reading_at(0.5)(photographs, strength=0.0, output_type="pt").images
    assert torch.allclose(result, photographs, atol=0.02)


def test_latents_come_out_and_callbacks_are_called(reading_at, photographs):
    asked = []

    def note(pipeline, step, timestep, values):
        asked.append(values["latents"].shape[-2:])
        return values

    pipeline = reading_at(0.5)
    noise = torch.randn(pipeline.latent_shape(pipeline.grid(120, 90, 0), 1))
    latents = pipeline(photographs[:1], latents=noise, output_type="latent", callback_on_step_end=note).images
    assert latents.shape == noise.shape
    assert asked == [pipeline.latent_shape(pipeline.grid(60, 45, 0), 1)[-2:]]


def test_what_is_hidden_is_hidden_in_the_smaller_photograph(reading_at, photographs):
    hidden = torch.zeros(1, 1, 120, 90, dtype=torch.bool)
    hidden[..., 40:80, 30:60] = True
    pipeline = reading_at(0.5)
    plain, filled = (
        pipeline(photographs[:1], hidden=mask, output_type="pt", generator=seeds(1)).images for mask in (None, hidden)
    )
    assert not torch.allclose(plain, filled, atol=1e-3)
    assert torch.allclose(plain[..., :8, :8], filled[..., :8, :8], atol=0.05)
