import numpy
import pytest
import torch
from torch import nn

from bd_diff.training import losses


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 3, 12, 17, generator=generator, dtype=torch.float64)


def test_sobel_is_the_difference_of_scipy_s_filtered_images(pair):
    from scipy.ndimage import sobel

    planes = (pair[0] - pair[1]).flatten(0, 1).numpy()
    edges = [[numpy.abs(sobel(plane, axis)[1:-1, 1:-1]).mean() for plane in planes] for axis in (0, 1)]
    assert losses.sobel(*pair).item() == pytest.approx(numpy.mean(edges[0]) + numpy.mean(edges[1]))


def test_sobel_does_not_see_a_change_of_brightness(pair):
    assert losses.sobel(pair[0], pair[0] + 0.25).item() == pytest.approx(0, abs=1e-12)


def test_fourier_is_the_mean_modulus_of_the_orthonormal_spectrum(pair):
    spectrum = numpy.fft.fft2((pair[0] - pair[1]).numpy(), norm="ortho")
    assert losses.fourier(*pair).item() == pytest.approx(numpy.abs(spectrum).mean(), rel=1e-5)


def test_fourier_does_not_grow_with_the_image():
    noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    small, large = (losses.fourier(noise[..., :s, :s], torch.zeros(1, 1, s, s)).item() for s in (32, 256))
    assert small == pytest.approx(large, rel=0.1)


@pytest.mark.parametrize("loss", [losses.sobel, losses.fourier])
def test_equal_images_have_no_loss_and_a_finite_gradient(loss):
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    value = loss(images, images.detach().clone())
    value.backward()
    assert value.item() == 0 and images.grad.isfinite().all()


def test_hinge_losses_are_the_equations():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert losses.hinge_discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert losses.hinge_generator(fake).item() == pytest.approx(2 / 3)


def test_perceptual_is_l1_between_features_of_normalised_images(pair):
    layer = nn.Conv2d(3, 4, 3).double()
    loss = losses.Perceptual(layer).double()
    mean, std = (torch.tensor(v)[:, None, None] for v in (losses.IMAGENET_MEAN, losses.IMAGENET_STD))
    expected = (layer((pair[0] - mean) / std) - layer((pair[1] - mean) / std)).abs().mean()
    assert loss(*pair).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_perceptual_network_is_frozen_but_lets_the_gradient_through():
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    loss = losses.Perceptual(nn.Conv2d(3, 4, 3))
    loss(images, torch.rand(1, 3, 8, 8)).backward()
    assert images.grad.any() and not any(weight.requires_grad for weight in loss.parameters())


def test_without_vgg16_s_weights_the_error_says_where_to_place_them(monkeypatch, tmp_path):
    from urllib.error import URLError

    def unreachable(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(OSError, match=f"vgg16.*pth at {tmp_path}.*or set its weight to 0"):
        losses.Perceptual()


def test_the_perceptual_network_ends_at_relu3_3(monkeypatch):
    """Its weights are not needed to see its layers: seven convolutions, 256 channels at a quarter of the size."""
    from torchvision.models.vgg import VGG, cfgs, make_layers

    untrained = VGG(make_layers(cfgs["D"]), init_weights=False, num_classes=1)
    untrained.classifier = nn.Identity()
    monkeypatch.setattr("torchvision.models.vgg16", lambda weights: untrained)
    features = losses.vgg16_features()
    with torch.no_grad():
        assert features(torch.rand(1, 3, 32, 32)).shape == (1, 256, 8, 8)
    assert isinstance(features[-1], nn.ReLU) and sum(isinstance(layer, nn.Conv2d) for layer in features) == 7


def test_weighted_losses_sum_each_with_its_weight(pair):
    values = losses.WeightedLosses({"mae": 1.0, "sobel": 0.5, "fourier": 0.0})(*pair)
    assert set(values) == {"loss", "mae", "sobel"}
    assert values["loss"] == (pair[0] - pair[1]).abs().mean() + 0.5 * losses.sobel(*pair)


def test_a_perceptual_loss_of_weight_0_is_never_prepared():
    def unavailable():
        raise AssertionError("prepared")

    losses.WeightedLosses({"mse": 1.0, "perceptual": 0.0}, unavailable)
    with pytest.raises(AssertionError, match="prepared"):
        losses.WeightedLosses({"mse": 1.0, "perceptual": 0.1}, unavailable)


@pytest.mark.parametrize(
    "weights, sentence",
    [({"ssim": 1.0}, "no loss 'ssim'; the losses are mae"), ({}, "above 0"), ({"mae": -1.0, "mse": 1.0}, "none below")],
)
def test_loss_weights_that_make_no_sense_are_refused(weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        losses.WeightedLosses(weights)
