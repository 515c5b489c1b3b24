"""The components of BD-Diff: shapes, what they must not depend on, and that they save and load."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bd_diff.blur.kernels import blur, delta, gaussian, line, shake
from bd_diff.blur.operator import extend, reblur, wiener
from bd_diff.evaluation.metrics import psnr
from bd_diff.models.blur_decoder import BlurDecoder
from bd_diff.models.conditioning import condition, deblur_guesses, to_latents, to_pixels, transfer_guesses
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.lag_maps import lag_maps
from bd_diff.models.patch_qformer import PatchQFormer
from bd_diff.models.pixel_vae import PixelVAE
from bd_diff.models.qformer import QFormer
from bd_diff.models.unet import MOST, NAFBlock, NAFUNet
from bd_diff.reading.kernel_search import KEPT, STARTS, best_window, reblur_residual, scales, search_kernels


def scene(size=256, seed=0):
    """Overlapping rectangles of random grey and colour: strong edges in all directions."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((3, size, size), 0.5)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for _ in range(60):
        row, column, tall, wide, angle = torch.rand(5, generator=generator).tolist()
        turn = torch.tensor(angle * 3.14)
        across = (columns - column * size) * turn.cos() + (rows - row * size) * turn.sin()
        down = (rows - row * size) * turn.cos() - (columns - column * size) * turn.sin()
        inside = (across.abs() < 4 + wide * size / 6) & (down.abs() < 4 + tall * size / 6)
        image[:, inside] = torch.rand(3, 1, generator=generator)
    return image[None]


@pytest.fixture(scope="module")
def shaken():
    """A sharp scene, the same shaken by 14 pixels, and the kernel."""
    sharp = scene(288)
    kernel = shake(torch.tensor([14.0]), torch.Generator().manual_seed(4))
    return sharp[..., 16:-16, 16:-16], blur(sharp, kernel, mode="valid").clamp(0, 1), kernel


def test_wiener_with_the_true_kernel_sharpens(shaken):
    sharp, blurry, kernel = shaken
    deblurred = wiener(blurry, kernel)
    assert deblurred.shape == (1, 3, 3, 256, 256)
    assert psnr(deblurred[:, 1].clamp(0, 1), sharp) > psnr(blurry, sharp) + 5


def test_wiener_keeps_a_constant_image_and_a_sharp_one():
    constant = torch.full((1, 3, 40, 52), 0.3)
    assert (wiener(constant, gaussian(torch.tensor([2.0])))[:, 0] - 0.3).abs().max() < 1e-4
    sharp = scene(64)
    assert (wiener(sharp, delta(1))[:, 0] - sharp).abs().max() < 0.02


def test_wiener_and_reblur_pass_gradients_to_the_kernel():
    kernel = gaussian(torch.tensor([1.5])).requires_grad_()
    image = scene(48)
    (wiener(image, kernel).square().mean() + reblur(image, kernel).square().mean()).backward()
    assert kernel.grad.isfinite().all() and kernel.grad.abs().max() > 0


def test_extend_reflects_as_often_as_needed():
    image = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert extend(image, 0, 0, 5, 4)[0, 0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert extend(torch.ones(1, 1, 1, 1), 3, 3, 3, 3).shape == (1, 1, 7, 7)


def test_the_search_finds_a_shake_with_its_direction(shaken):
    sharp, blurry, kernel = shaken
    light = blurry.mean(1, keepdim=True)
    found = search_kernels(light)
    assert found.shape == (1, KEPT[0], 33, 33)
    best = found[:, reblur_residual(light.expand(KEPT[0], -1, -1, -1), found[0]).argmin()]

    def gain(kernels):
        return psnr(wiener(blurry, kernels)[:, 1].clamp(0, 1), sharp) - psnr(blurry, sharp)

    assert gain(best) > 3
    assert gain(best) > gain(best.flip(1, 2)) + 2  # the mirrored kernel has the same spectrum


def test_the_reblur_residual_prefers_the_true_kernel(shaken):
    _, blurry, kernel = shaken
    light = blurry.mean(1, keepdim=True)
    wrong = line(torch.tensor([15.0]), torch.tensor([1.0]))
    assert reblur_residual(light, kernel) < 0.8 * reblur_residual(light, wrong)
    assert reblur_residual(light, kernel) < 0.8 * reblur_residual(light, kernel.flip(1, 2))


def test_of_many_starts_only_the_best_reach_the_full_resolution(shaken):
    images = torch.cat([shaken[1], shaken[1].flip(2)]).mean(1, keepdim=True)[..., :192, :192]
    few = search_kernels(images, STARTS[:3], kept=(1, 3, 3))
    assert few.shape == (2, 1, 33, 33)
    everyone = search_kernels(images, STARTS[:3], kept=(3, 3, 3))
    for index in range(2):  # each image keeps one of its own
        differences = (everyone[index] - few[index]).abs().sum((1, 2))
        assert differences.min() < 1e-3


def test_the_search_ends_early_where_a_known_kernel_explains_the_photograph_as_well(shaken):
    sharp, blurry, kernel = shaken
    light = blurry.mean(1, keepdim=True)
    goes_on = search_kernels(light, STARTS[:2], rival=kernel.flip(1, 2))
    assert torch.equal(goes_on, search_kernels(light, STARTS[:2]))
    soft = gaussian(torch.tensor([2.0]))
    assert search_kernels(reblur(sharp, soft).mean(1, keepdim=True), STARTS[:2], rival=soft) is None


class Counter(TorchDispatchMode):
    """Counts operator calls and, among them, those that read a number from a tensor."""

    def __init__(self):
        super().__init__()
        self.calls = self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_search_hardly_waits_for_numbers_whatever_its_starts(shaken):
    light = shaken[1][..., :192, :192].mean(1, keepdim=True)
    counts = []
    for starts in (STARTS[:2], STARTS[:6]):
        with Counter() as counter:
            search_kernels(light, starts, kept=(1, 1, 1))
        counts.append(counter)
    assert all(counter.reads < 60 for counter in counts)  # once a round, and no more of more starts
    assert counts[1].calls < 1.2 * counts[0].calls


def test_the_search_refuses_a_small_window():
    with pytest.raises(ValueError, match="needs 192 pixels a side; the window is 100x256"):
        search_kernels(torch.rand(1, 1, 100, 256))


def test_the_best_window_is_where_the_edges_are():
    image = torch.zeros(1, 1, 300, 600)
    image[..., 340:] = scene(300)[:, :1, :, :260]
    window = image[best_window(image)]
    assert window.shape == (1, 1, 256, 256)
    assert window.std() > 0.8 * image[..., 340:].std()


def test_scales_go_from_coarse_to_the_full_kernel():
    steps = scales(33)
    assert steps[-1] == (1.0, 33) and steps[0][1] == 5
    assert all(size % 2 for _, size in steps) and [size for _, size in steps] == sorted(size for _, size in steps)


def test_lag_maps_do_not_see_brightness_or_contrast_but_blur():
    image = scene(128)
    maps, spectra = lag_maps(image)
    assert maps.shape == (1, 3, 49, 49) and spectra.shape == (1, 64 * 33)
    assert (lag_maps(0.4 * image + 0.2)[0] - maps).abs().mean() < 0.1 * maps.abs().mean()
    blurred, _ = lag_maps(blur(image, line(torch.tensor([15.0]), torch.tensor([0.0]))))
    assert (blurred - maps).abs().mean() > 0.3 * maps.abs().mean()


def test_features_have_their_shapes_and_small_images_have_them_too():
    encoder = ImageEncoder(feature_channels=16, structure_channels=8, map_channels=4)
    for size in ((8, 8), (70, 101)):
        features = encoder(torch.rand(2, 3, *size) * 2 - 1)
        assert features.structure.shape == (2, 64, 16)
        assert features.blur.shape == (2, 49, 16)
        assert features.kernels.shape == (2, 33, 33) and features.confidence.shape == (2,)


def test_a_zero_hypothesis_is_no_hypothesis():
    torch.manual_seed(0)
    encoder = ImageEncoder(map_channels=4)
    torch.nn.init.normal_(encoder.kernel_reader.to_logits.weight)
    pixels, nothing, evidence = torch.rand(2, 3, 64, 64), torch.zeros(2, 33, 33), torch.ones(2, 2, 33, 33)
    with_zero, without = encoder(pixels, nothing, evidence), encoder(pixels)
    assert torch.allclose(with_zero.kernels, without.kernels)


def test_kernels_that_are_read_follow_the_hypothesis_as_far_as_there_is_confidence_in_it():
    torch.manual_seed(0)
    encoder = ImageEncoder(map_channels=4)
    confidence = encoder.kernel_reader.to_confidence.bias
    pixels, evidence = torch.rand(3, 3, 64, 64), torch.zeros(3, 2, 33, 33)
    hypothesis = shake(torch.full((3,), 14.0), torch.Generator().manual_seed(0))
    alone, mixed = encoder(pixels), encoder(pixels, hypothesis, evidence)
    for kernels in (alone.kernels, mixed.kernels):
        assert kernels.min() >= 0 and torch.allclose(kernels.sum((1, 2)), torch.ones(3))
    torch.nn.init.constant_(confidence, 20.0)
    confident = encoder(pixels, hypothesis, evidence).kernels
    assert ((confident - hypothesis).abs().sum((1, 2)) < 0.5 * (confident - hypothesis.flip(1)).abs().sum((1, 2))).all()
    torch.nn.init.constant_(confidence, -20.0)
    assert torch.allclose(encoder(pixels, hypothesis, evidence).kernels, alone.kernels, atol=1e-6)
    assert torch.allclose(mixed.kernels, (confident + alone.kernels) / 2, atol=1e-6)


@pytest.fixture(scope="module")
def blur_qformer():
    torch.manual_seed(0)
    return QFormer(num_queries=4, feature_channels=16, token_channels=24, hidden_size=16, num_layers=1, num_heads=2)


def test_strength_zero_gives_the_null_tokens_whatever_the_image(blur_qformer):
    tokens = blur_qformer(torch.randn(2, 9, 16), strength=0.0)
    assert torch.equal(tokens, blur_qformer.null_tokens.expand(2, -1, -1))


def test_strength_is_one_number_an_image_or_one_for_all(blur_qformer):
    features = torch.randn(2, 9, 16)
    full = blur_qformer(features)
    mixed = blur_qformer(features, strength=torch.tensor([0.0, 1.0]))
    assert torch.equal(mixed[0], blur_qformer.null_tokens[0]) and torch.allclose(mixed[1], full[1])


def test_every_query_reads_something_of_its_own(blur_qformer):
    tokens = blur_qformer(torch.randn(1, 9, 16))[0]
    assert torch.pdist(tokens).min() > 1e-3


def test_the_pixel_vae_loses_nothing():
    vae, pixels = PixelVAE(), torch.rand(2, 3, 8, 12) * 2 - 1
    latents = to_latents(vae, pixels)
    assert latents.shape == (2, 12, 4, 6)
    assert torch.equal(to_pixels(vae, latents), pixels)
    with pytest.raises(ValueError, match="not 16"):
        PixelVAE(latent_channels=16)


def test_the_condition_is_the_first_guess_and_differences_to_it():
    vae, pixels = PixelVAE(), scene(64) * 2 - 1
    guesses = deblur_guesses(pixels, delta(1))
    first, seen = condition(vae, guesses, 4)
    assert torch.equal(first, to_latents(vae, pixels))
    assert seen.shape == (1, 48, 32, 32)
    restored = to_pixels(vae, first + seen[:, 24:36])
    assert torch.allclose(restored, guesses[:, 2], atol=1e-5)
    blurred = transfer_guesses(pixels, gaussian(torch.tensor([2.0])))
    assert torch.equal(blurred[:, 1], pixels) and not torch.equal(blurred[:, 0], pixels)
    four = torch.cat([blurred[:, :1], *[pixels[:, None]] * 3], 1)  # the image in place of each deconvolution
    assert all(torch.equal(*pair) for pair in zip(condition(vae, blurred, 4), condition(vae, four, 4), strict=True))
    assert deblur_guesses(pixels, None).shape == (1, 1, 3, 64, 64)


def test_the_unet_ignores_noise_at_the_last_timestep_and_only_there():
    torch.manual_seed(0)
    unet = NAFUNet(width=8, middle_blocks=1, cross_attention_dim=16)
    torch.nn.init.normal_(unet.leave.weight, std=0.1)
    tokens, seen = torch.randn(1, 4, 16), torch.randn(1, 48, 8, 8)
    noises = [torch.randn(1, 12, 8, 8) for _ in range(2)]
    last = [unet(torch.cat([noise, seen], 1), 999, tokens).sample for noise in noises]
    middle = [unet(torch.cat([noise, seen], 1), torch.tensor([500]), tokens).sample for noise in noises]
    assert torch.equal(last[0], last[1]) and not torch.equal(middle[0], middle[1])


def test_an_untrained_unet_leaves_the_first_guess():
    unet = NAFUNet(width=8, middle_blocks=1, cross_attention_dim=16)
    assert not unet(torch.randn(1, 60, 8, 8), 999, torch.randn(1, 4, 16)).sample.any()


@pytest.mark.parametrize("model", [ImageEncoder(), QFormer(), PatchQFormer(), BlurDecoder(), NAFUNet(), PixelVAE()])
def test_every_component_saves_and_loads_to_the_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_gate_that_explodes_stays_bounded():
    torch.manual_seed(0)
    block, time = NAFBlock(4, 8), torch.zeros(1, 8)
    images = torch.randn(1, 4, 8, 8)
    usual = block(images, time)
    torch.nn.init.constant_(block.feed[1].weight, 1e4)
    exploded = block(images, time)
    reached = (block.forward_project.weight.abs().sum(1).max() + 1) * MOST * block.scales[1].abs().max()
    assert (exploded - usual).abs().max() <= 2 * reached and (exploded - usual).abs().max() > 1
