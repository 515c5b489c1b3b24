"""Each protocol against its definition, written out with scikit-image."""

import sys

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bd_diff.data.images import to_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.protocols import PROTOCOLS, eight_bit, find_protocol

TRUTH = procedural_image(64, torch.Generator().manual_seed(3), "leaves")
RESULT = (TRUTH + 0.05 * torch.randn(TRUTH.shape, generator=torch.Generator().manual_seed(4))).clamp(0, 1)
GAUSSIAN = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)


def array(image):
    return image.permute(1, 2, 0).double().numpy()


def bytes_of(image):
    return np.round(array(image) * 255).astype(np.uint8)


def test_results_are_rounded_as_files_are_written_where_levels_tie_too():
    halfway = ((torch.arange(255) + 0.5) / 255).expand(3, 1, -1)
    written = to_tensor(to_image(halfway)).double()
    assert torch.equal((eight_bit(halfway.double()) * 255).round(), (written * 255).round())


@pytest.mark.parametrize("name", ["rgb", "gopro-rgb", "hide", "blur-families"])
def test_rgb_protocols_have_scikit_images_psnr_at_eight_bit(name):
    expected = peak_signal_noise_ratio(bytes_of(TRUTH), bytes_of(RESULT))
    assert find_protocol(name).score(RESULT, TRUTH)["psnr"] == pytest.approx(expected, abs=1e-6)


def test_rgb_has_scikit_images_ssim():
    expected = structural_similarity(bytes_of(TRUTH), bytes_of(RESULT), channel_axis=-1)
    assert find_protocol("rgb").score(RESULT, TRUTH)["ssim"] == pytest.approx(expected, abs=1e-6)


def test_the_y_channel_is_scikit_images():
    truth, result = (np.round(rgb2ycbcr(bytes_of(image))[..., 0]) for image in (TRUTH, RESULT))
    scores = find_protocol("y-channel").score(RESULT, TRUTH)
    assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, result, data_range=255), abs=0.02)
    assert scores["ssim"] == pytest.approx(structural_similarity(truth, result, data_range=255, **GAUSSIAN), abs=1e-3)


def test_extreme_compares_at_256_with_the_range_of_the_truth():
    truth, result = (
        torch.nn.functional.interpolate(0.2 + 0.5 * i[None], 256, mode="bilinear")[0] for i in (TRUTH, RESULT)
    )
    scores = find_protocol("extreme").score(result, truth)
    span = float(truth.max() - truth.min())
    assert scores["psnr"] == pytest.approx(
        peak_signal_noise_ratio(array(truth), array(result), data_range=span), abs=1e-6
    )
    expected = structural_similarity(array(truth), array(result), win_size=7, channel_axis=2, data_range=span)
    assert scores["ssim"] == pytest.approx(expected, abs=1e-6)


def test_a_result_of_another_size_than_256_is_resized_for_extreme():
    assert find_protocol("extreme").score(TRUTH, TRUTH)["psnr"] == 100


def test_realblur_forgives_brightness_and_a_small_shift():
    pytest.importorskip("cv2")
    truth = procedural_image(160, torch.Generator().manual_seed(5), "leaves")
    truth = torch.nn.functional.avg_pool2d(truth[None], 5, 1, 2)[0]
    shifted = 0.8 * truth.roll((2, -3), (1, 2))
    scores, plain = (find_protocol(name).score(shifted, truth) for name in ("realblur-ecc", "rgb"))
    assert scores["aligned"] == 1
    assert scores["psnr"] > plain["psnr"] + 12 and scores["ssim"] > 0.97


def test_realblur_without_a_common_structure_is_compared_as_it_lies():
    pytest.importorskip("cv2")
    scores = find_protocol("realblur-ecc").score(torch.full((3, 64, 64), 0.5), TRUTH)
    assert scores["aligned"] == 0 and 0 < scores["psnr"] < 30


def test_realblur_without_opencv_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match="realblur-ecc needs OpenCV: pip install 'bd-diff.eval.'"):
        find_protocol("realblur-ecc").score(RESULT, TRUTH)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "realblur-ecc"])
def test_the_truth_itself_gets_the_best_scores(name):
    scores = find_protocol(name).score(TRUTH, TRUTH, extra=("gmsd",))
    assert scores["psnr"] == 100 and scores["ssim"] == pytest.approx(1) and scores["gmsd"] == pytest.approx(0, abs=1e-9)


def test_an_unknown_protocol_is_told_which_exist():
    with pytest.raises(ValueError, match="no protocol .gopro.; the protocols are rgb, blur-families, blur-fam"):
        find_protocol("gopro")
