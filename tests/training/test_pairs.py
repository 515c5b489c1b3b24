import pytest
import torch

from bd_diff.blur.curriculum import level, severity
from bd_diff.blur.kernels import blur, box
from bd_diff.training.pairs import BORDER, BlurConfig, Severities, make_pair


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(generator):
    return {"sharp": torch.rand(4, 3, 12 + BORDER, 20 + BORDER, generator=generator)}


def test_without_blur_the_pair_is_the_same_image_twice(batch, generator):
    blurry, sharp = make_pair(batch, BlurConfig(families={"delta": 1.0}), generator)
    assert sharp.shape == (4, 3, 12, 20)
    assert torch.allclose(blurry, sharp, atol=1e-5)


def test_at_severity_zero_boxes_are_three_pixels_wide(batch, generator):
    batch["severity"] = torch.zeros(4)
    blurry, _ = make_pair(batch, BlurConfig(families={"box": 1.0}), generator)
    inside = slice(BORDER // 2, -(BORDER // 2))
    assert torch.allclose(blurry, blur(batch["sharp"], box(torch.full((4,), 3.0)))[..., inside, inside], atol=1e-5)


def test_the_share_of_delta_is_the_share_of_sharp_pairs(generator):
    batch = {"sharp": torch.rand(400, 1, BORDER + 2, BORDER + 2, generator=generator)}
    blurry, sharp = make_pair(batch, BlurConfig(families={"delta": 0.25, "box": 0.75}), generator)
    unchanged = torch.isclose(blurry, sharp, atol=1e-5).flatten(1).all(1).float().mean()
    assert 0.19 < unchanged < 0.31


def test_a_batch_with_blurry_images_is_its_own_pair(batch, generator):
    batch["blurry"] = torch.zeros_like(batch["sharp"])
    blurry, sharp = make_pair(batch, BlurConfig(noise=0.5), generator)
    assert blurry is batch["blurry"] and sharp is batch["sharp"]


def test_noise_differs_in_strength_between_images_up_to_its_limit(batch, generator):
    batch = {"sharp": torch.full((50, 3, 20 + BORDER, 20 + BORDER), 0.5)}
    blurry, sharp = make_pair(batch, BlurConfig(noise=0.1), generator)
    deviations = (blurry - sharp).flatten(1).std(1)
    assert deviations.max() < 0.11 and deviations.min() < 0.02 and deviations.mean() > 0.03


def test_the_curriculum_is_spread_over_the_whole_run():
    samples = Severities([{}] * 1000, BlurConfig(curriculum="exponential", epochs=100), total=1000)
    expected = [severity(level("exponential", index // 10)) for index in range(1000)]
    assert [samples[index]["severity"].item() for index in range(1000)] == pytest.approx(expected)


def test_after_the_end_the_last_severity_stays():
    samples = Severities([{}] * 20, BlurConfig(curriculum="linear", epochs=5), total=10)
    assert samples[19]["severity"] == samples[9]["severity"]


def test_an_unknown_curriculum_is_refused_before_training():
    with pytest.raises(ValueError, match="linar"):
        Severities([], BlurConfig(curriculum="linar"), total=10)
