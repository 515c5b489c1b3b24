"""Metrics against scikit-image, scipy and torchmetrics."""

import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bd_diff.blur.kernels import blur, gaussian
from bd_diff.data.pixels import LUMINANCE
from bd_diff.evaluation import card_tables, metrics


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 3, 40, 33, generator=generator)
    return (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def each(pair):
    return [tuple(image.permute(1, 2, 0).double().numpy() for image in images) for images in zip(*pair, strict=True)]


def test_psnr_is_scikit_images(pair):
    expected = [peak_signal_noise_ratio(truth, result, data_range=1) for result, truth in each(pair)]
    assert metrics.psnr(*pair).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_ssim_is_scikit_images(pair):
    expected = [structural_similarity(a, b, channel_axis=-1, data_range=1) for a, b in each(pair)]
    assert metrics.ssim(*pair).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_gaussian_ssim_is_scikit_images(pair):
    settings = dict(channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    expected = [structural_similarity(a, b, **settings) for a, b in each(pair)]
    assert metrics.ssim(*pair, gaussian=True).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_volume_ssim_is_scikit_images_on_a_volume_with_repeated_borders(pair):
    def mean(volume):
        return gaussian_filter(volume, 1.5, mode="nearest", radius=5)

    for value, (a, b) in zip(metrics.ssim_volume(*pair), each(pair), strict=True):
        variances = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
        covariance = mean(a * b) - mean(a) * mean(b)
        similarity = (2 * mean(a) * mean(b) + 1e-4) * (2 * covariance + 9e-4)
        similarity /= (mean(a) ** 2 + mean(b) ** 2 + 1e-4) * (variances + 9e-4)
        assert float(value) == pytest.approx(similarity.mean(), abs=1e-6)


@pytest.mark.parametrize("gaussian", [False, True])
def test_data_range_is_scikit_images(gaussian, pair):
    extra = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False) if gaussian else {}
    a, b = each(pair)[0]
    first = [images[:1] for images in pair]
    expected = structural_similarity(a, b, channel_axis=-1, data_range=0.7, **extra)
    assert float(metrics.ssim(*first, gaussian=gaussian, data_range=0.7)) == pytest.approx(expected, abs=1e-6)
    assert float(metrics.psnr(*first, data_range=0.7)) == pytest.approx(
        peak_signal_noise_ratio(b, a, data_range=0.7), abs=1e-6
    )


def test_only_pixels_under_the_mask_count(pair):
    result, truth = pair
    mask = torch.zeros(3, 1, 40, 33)
    mask[..., :20] = 1
    assert torch.allclose(metrics.psnr(result, truth, mask), metrics.psnr(result[..., :20], truth[..., :20]))
    assert torch.allclose(metrics.ssim(result, truth, mask=torch.ones_like(mask)), metrics.ssim(result, truth))
    mask[..., 12:] = 0
    spoilt = torch.cat([result[..., :20], torch.zeros(3, 3, 40, 13)], -1)
    assert torch.allclose(metrics.ssim(spoilt, truth, mask=mask), metrics.ssim(result, truth, mask=mask))


def test_gmsd_is_the_authors_formula_written_out(pair):
    def magnitude(image):
        grey = image @ np.array(LUMINANCE)
        half = grey[:40, :32].reshape(20, 2, 16, 2).mean((1, 3))
        prewitt = np.array([[1, 0, -1]] * 3) / 3
        return np.hypot(convolve2d(half, prewitt, "same"), convolve2d(half, prewitt.T, "same"))

    for value, (result, truth) in zip(metrics.gmsd(*pair), each(pair), strict=True):
        a, b = magnitude(result), magnitude(truth)
        similarity = (2 * a * b + 170 / 255**2) / (a**2 + b**2 + 170 / 255**2)
        assert float(value) == pytest.approx(np.std(similarity, ddof=1), abs=1e-6)


def test_gradient_energy_ratio_falls_with_blur(pair):
    _, truth = pair
    ratios = [
        float(metrics.gradient_energy_ratio(blur(truth, gaussian(torch.full((3,), s), 9)), truth).mean())
        for s in (0.01, 0.6, 1.5)
    ]
    assert ratios[0] == pytest.approx(1, abs=1e-4) and ratios[0] > ratios[1] > ratios[2]
    scaled = metrics.gradient_energy_ratio(0.5 * truth, truth)
    assert scaled.numpy() == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("name, best", [("psnr", 100), ("ssim", 1), ("gmsd", 0), ("gradient_ratio", 1)])
def test_identical_images_get_the_best_value(name, best, pair):
    assert metrics.METRICS[name].compute(pair[1], pair[1]).numpy() == pytest.approx(best, abs=1e-9)


def test_one_image_scores_the_same_alone_and_in_a_batch(pair):
    for name in ("psnr", "ssim", "gmsd", "gradient_ratio"):
        compute = metrics.METRICS[name].compute
        alone = torch.cat([compute(*(images[i : i + 1] for images in pair)) for i in range(3)])
        assert torch.allclose(alone, compute(*pair), atol=1e-12)


def test_ms_ssim_orders_images_and_asks_for_large_ones():
    truth = torch.rand(1, 3, 180, 180, generator=torch.Generator().manual_seed(1))
    mild, strong = (metrics.ms_ssim((truth * (1 - a) + 0.5 * a), truth) for a in (0.2, 0.8))
    assert 1 > mild > strong
    with pytest.raises(ValueError, match="at least 176 pixels; these images are 40x180"):
        metrics.ms_ssim(truth[..., :40, :], truth[..., :40, :])


def test_the_y_channel_has_video_range():
    ends = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 2, 2)
    assert metrics.y_channel(ends)[:, 0, 0, 0].tolist() == pytest.approx([16 / 255, 235 / 255])


def test_bad_input_is_one_sentence(pair):
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics.psnr(pair[0], pair[1][..., 1:])
    with pytest.raises(ValueError, match="at least 7x7 pixels; these are 5x33"):
        metrics.ssim(pair[0][..., :5, :], pair[1][..., :5, :])
    with pytest.raises(ValueError, match="no metric vmaf; the metrics are psnr, "):
        metrics.check_metrics(["psnr", "vmaf"])


@pytest.mark.parametrize("name", ["LPIPS", "DISTS"])
def test_weights_that_cannot_be_had_are_one_sentence(name, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    metrics.perceptual_network.cache_clear()
    with pytest.raises(ValueError, match=f"{name} needs ImageNet weights .*/checkpoints by hand, or leave {name} out"):
        metrics.METRICS[name.lower()].compute(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
    metrics.perceptual_network.cache_clear()


def test_a_reference_free_metric_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    metrics.reference_free_network.cache_clear()
    with pytest.raises(ValueError, match="niqe needs the package pyiqa .* leave niqe out"):
        metrics.METRICS["niqe"].compute(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_fid_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ValueError, match="FID needs torch-fidelity .*/checkpoints by hand, or leave FID out"):
        metrics.FID()


def test_registered_psnr_forgives_a_shift_and_nothing_else():
    truth = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noisy = (truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    moved = noisy.roll((1, -2), (-2, -1))
    assert torch.all(metrics.psnr(moved, truth) < 10)
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(metrics.psnr_registered(moved, truth), metrics.psnr(noisy[inside], truth[inside]))
    assert torch.all(metrics.psnr_registered(noisy.roll(9, -1), truth) < 10)  # beyond its reach
    with pytest.raises(ValueError, match="more than 16 pixels"):
        metrics.psnr_registered(truth[..., :16], truth[..., :16])


def test_the_tables_know_every_metric_and_its_unit():
    assert card_tables.METRIC_NAMES == tuple(metrics.METRICS)
    assert card_tables.DECIBELS == tuple(name for name, metric in metrics.METRICS.items() if metric.unit == "dB")
