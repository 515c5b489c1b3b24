"""Blur families, stored blurs, fields of kernels and the camera."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bd_diff.blur import convolution, kernels
from bd_diff.blur.camera import Camera, compress, to_display, to_light
from bd_diff.blur.synthesis import FAMILIES, Blur, blur_field, draw_blur, draw_fields, draw_kernels

MIX = {"delta": 0.1, "gaussian": 0.3, "line": 0.3, "shake": 0.3}
families = st.sampled_from(sorted(FAMILIES))
seeds = st.integers(0, 2**31 - 1)
SHAKE_MOMENTS = 6.4076, 16.3269, -5.3145  # of the first version's kernels: what tables were measured with
DRAWN_MOMENTS = 21.4913, 4.1401, -6.7504


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def convolve_directly(image, kernel):
    """Written-out sum over the neighbourhood, borders reflected; image `(H, W)`."""
    reach, size = kernel.shape[0] // 2, kernel.shape[0]
    padded = torch.nn.functional.pad(image[None, None], (reach,) * 4, mode="reflect")[0, 0]
    height, width = image.shape
    shifted = (
        padded[2 * reach - r :, 2 * reach - c :][:height, :width] * kernel[r, c]
        for r in range(size)
        for c in range(size)
    )
    return sum(shifted)


@settings(max_examples=30, deadline=None)
@given(family=families, seed=seeds, severity=st.floats(0, 1), value=st.floats(0, 1), variation=st.just(0.5))
def test_a_constant_image_stays_constant_under_every_blur(family, seed, severity, value, variation):
    blur = draw_blur(family, generator(seed), severity, variation)
    image = torch.full((1, 3, 24, 31), value)
    assert torch.allclose(blur.apply(image, size=21), image, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_blurs_as_a_direct_sum_does(family):
    blur, image = draw_blur(family, generator(3)), torch.rand(1, 1, 40, 37, generator=generator(4))
    expected = convolve_directly(image[0, 0], blur.kernel())
    assert torch.allclose(blur.apply(image)[0, 0], expected, atol=1e-5)


def test_kernels_agree_with_their_formulas():
    gaussian = Blur("gaussian", 1.5).kernel(9)
    assert gaussian[4, 6] / gaussian[4, 4] == pytest.approx(math.exp(-(2**2) / (2 * 1.5**2)), rel=1e-5)
    box = Blur("box", 5).kernel(9)
    assert torch.equal(box > 0, torch.nn.functional.pad(torch.ones(5, 5), (2,) * 4) > 0)
    assert box.max() == pytest.approx(1 / 25)
    disc = Blur("disc", 3).kernel(9)
    assert disc[4, 7] == pytest.approx(float(disc[4, 4]) / 2) and disc[1, 1] == 0
    line = Blur("line", 7, angle=0).kernel(9)
    assert line[4].sum() == pytest.approx(1, abs=1e-3) and line[4, 1:8].min() > 0.05
    rows, columns = kernels.grid(33)
    shake = Blur("shake", 16, seed=5).kernel() > 1e-4
    reach = torch.maximum(rows.abs(), columns.abs())[shake].max()
    assert 7 <= reach <= 9  # extent 16: 8 pixels from the mean, shared with the next pixel


def moments(kernel):
    """Mass-weighted mean squares along rows and columns, and their mean product, of a kernel `(k, k)`."""
    rows, columns = kernels.grid(kernel.shape[-1])
    return float((kernel * rows**2).sum()), float((kernel * columns**2).sum()), float((kernel * rows * columns).sum())


def test_the_shakes_of_the_tables_are_the_same_for_ever():
    kernel = Blur("shake", 16, seed=5).kernel()
    assert moments(kernel) == pytest.approx(SHAKE_MOMENTS, rel=1e-4)
    (kernel,), _ = draw_kernels(1, generator(2), {"shake": 1.0})
    assert moments(kernel) == pytest.approx(DRAWN_MOMENTS, rel=1e-4)


def test_a_shake_by_hand_is_thicker_than_a_walk_and_about_its_centroid():
    by_hand, _ = draw_kernels(64, generator(), {"hand_shake": 1.0})
    walked, _ = draw_kernels(64, generator(), {"shake": 1.0})

    def steps(drawn):  # how much neighbours differ: strokes a pixel thin are all steps
        return ((drawn.diff(dim=1).abs().sum((1, 2)) + drawn.diff(dim=2).abs().sum((1, 2))) / 2).mean()

    assert steps(by_hand) < 0.6 * steps(walked)
    rows, columns = kernels.grid(33)
    assert (by_hand * rows).sum((1, 2)).abs().max() < 0.7 and (by_hand * columns).sum((1, 2)).abs().max() < 0.7


def test_a_camera_held_by_hand_rests():
    _, time = kernels.hand_path(torch.full((200,), 16.0), generator())
    assert torch.allclose(time.sum(1), torch.ones(200), atol=1e-5)
    longest = time.unfold(1, 12, 1).sum(-1).amax(1)  # of a twentieth of the path
    assert 0.2 < (longest > 0.2).float().mean() < 0.7


def test_a_ghost_is_there_twice_at_its_distance():
    kernel = Blur("ghost", 16, angle=0.0, seed=1).kernel()
    columns = kernel.sum(0)
    peaks = [i for i in range(1, len(columns) - 1) if columns[i] >= columns[i - 1] and columns[i] > columns[i + 1]]
    strongest = sorted(peaks, key=lambda i: -columns[i])[:2]
    assert abs(strongest[0] - strongest[1]) == pytest.approx(16, abs=1)


def test_an_astigmatic_lens_blurs_most_along_its_angle():
    for seed in range(8):
        down, right, together = moments(Blur("astigmatism", 3, angle=0.0, seed=seed).kernel(33))
        turned = moments(Blur("astigmatism", 3, angle=math.pi / 2, seed=seed).kernel(33))
        assert right > down and abs(together) < 1e-3
        assert turned[:2] == pytest.approx((right, down), rel=1e-3)


@pytest.mark.parametrize("family", ["shake", "hand_shake", "ghost", "astigmatism"])
def test_the_middle_of_a_blur_that_varies_is_its_kernel(family):
    blur = Blur(family, 9, angle=0.7, seed=3, variation=0.5)
    field = blur.field(33)
    assert torch.allclose(field[1, 1], blur.kernel(33), atol=1e-6)
    assert (field[0, 0] - field[1, 1]).abs().sum() > 0.1


@settings(max_examples=20, deadline=None)
@given(seed=seeds, severity=st.floats(0, 1), batch=st.integers(1, 6))
def test_drawn_kernels_are_kernels_and_the_same_for_the_same_generator(seed, severity, batch):
    drawn, family = draw_kernels(batch, generator(seed), MIX, severity, size=17)
    again, same_family = draw_kernels(batch, generator(seed), MIX, severity, size=17)
    assert drawn.shape == (batch, 17, 17) and family.shape == (batch,)
    assert torch.equal(drawn, again) and torch.equal(family, same_family)
    assert drawn.min() >= 0 and torch.allclose(drawn.sum((1, 2)), torch.ones(batch), atol=1e-5)


def test_families_are_drawn_by_their_shares():
    _, family = draw_kernels(4000, generator(), {"delta": 1, "box": 3, "disc": 0}, size=31)
    assert (family == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert not (family == 2).any()


def test_severity_opens_the_range_of_boxes_one_odd_width_at_a_time():
    def widths(severity):
        drawn, _ = draw_kernels(300, generator(1), {"box": 1}, severity)
        return sorted((drawn > 0).any(1).sum(1).unique().tolist())

    assert widths(0) == [3]
    assert widths(4 / 26) == [3, 5, 7]
    assert widths(1) == list(range(3, 30, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_blur_is_the_same_blur_on_another_image(family):
    blur = draw_blur(family, generator(2), variation=0.4)
    stored = Blur(**json.loads(json.dumps(blur.parameters())))
    image = torch.rand(2, 3, 40, 48, generator=generator(7))
    assert stored.name == blur.name and torch.equal(stored.apply(image), blur.apply(image))


@settings(max_examples=20, deadline=None)
@given(family=families, seed=seeds)
def test_blurring_a_mirrored_image_with_the_mirrored_kernel_mirrors_the_result(family, seed):
    kernel = draw_blur(family, generator(seed)).kernel(25)[None]
    image = torch.rand(1, 1, 30, 28, generator=generator(seed))
    mirrored = kernels.blur(image.flip(-1), kernel.flip(-1))
    assert torch.allclose(mirrored, kernels.blur(image, kernel).flip(-1), atol=1e-5)


def test_a_field_of_equal_kernels_is_one_kernel():
    kernel = Blur("shake", 12, seed=1).kernel(21)
    image = torch.rand(1, 3, 40, 50, generator=generator())
    field = kernel.expand(1, 3, 3, 21, 21)
    assert torch.allclose(blur_field(image, field), kernels.blur(image, kernel[None]), atol=1e-5)


def test_a_field_has_its_own_kernel_at_each_corner():
    left, right = Blur("delta").kernel(9), Blur("box", 9).kernel(9)
    image = torch.rand(1, 1, 30, 40, generator=generator())
    blurred = blur_field(image, torch.stack([left, right])[None, None])
    assert torch.allclose(blurred[..., 0], image[..., 0], atol=1e-5)
    assert torch.allclose(blurred[..., -1], kernels.blur(image, right[None])[..., -1], atol=1e-5)


def test_of_real_surroundings_only_a_field_gives_the_inside_of_its_blur_and_one_kernel_the_same_as_alone():
    field, image = Blur("disc", 3, variation=0.5).field(9)[None], torch.rand(1, 3, 40, 50, generator=generator())
    inside = blur_field(image, field, mode="valid")
    centre = blur_field(image, field)[..., 20, 25]  # interpolated alike in the middle
    assert inside.shape == (1, 3, 32, 42) and torch.allclose(inside[..., 16, 21], centre, atol=2e-3)
    one = field[:, 1:2, 1:2]
    assert torch.equal(blur_field(image, one, mode="valid"), kernels.blur(image, one[:, 0, 0], mode="valid"))


def test_half_of_the_batches_are_drawn_with_blur_that_differs_over_the_image():
    families = {"shake": 0.5, "disc": 0.5}
    drawn = [draw_fields(2, generator(seed), families, 0.8) for seed in range(40)]
    varying = [fields for fields in drawn if fields.shape[1] > 1]
    assert 10 < len(varying) < 30 and all(fields.shape == (2, 3, 3, 33, 33) for fields in varying)
    assert all((fields.sum((-2, -1)) - 1).abs().max() < 1e-5 for fields in drawn)
    assert all((fields[:, 0, 0] - fields[:, 2, 2]).abs().amax((1, 2)).min() > 0 for fields in varying)
    steady = draw_fields(2, generator(3), families)
    assert torch.equal(steady[:, 0, 0], draw_kernels(2, generator(3), families)[0])
    with pytest.raises(ValueError, match="variation is 1.5; it must be between 0 and 1"):
        draw_fields(2, generator(), families, 1.5)


def test_what_leaves_the_window_of_a_kernel_is_lost():
    cut = Blur("line", 25, angle=0).kernel(17)
    assert cut.sum() == pytest.approx(1, abs=1e-5) and cut[8, 0] < 1.01 * cut[8, 8]


def test_rolling_shake_differs_from_corner_to_corner_and_not_in_the_middle():
    still, rolling = Blur("shake", 14, seed=3), Blur("shake", 14, seed=3, variation=0.6)
    field = rolling.field(41)
    assert torch.allclose(field[1, 1], still.kernel(41), atol=1e-6)
    assert (field[0, 0] - field[2, 2]).abs().sum() > 0.5


def test_unknown_families_and_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="no blur family wobble; the families are delta, gaussian"):
        draw_kernels(2, generator(), {"wobble": 1})
    with pytest.raises(ValueError, match="no blur family wobble"):
        Blur("wobble")
    with pytest.raises(ValueError, match="severity is 1.5"):
        draw_kernels(2, generator(), MIX, severity=1.5)
    with pytest.raises(ValueError, match="give at least one"):
        draw_kernels(2, generator(), {})
    with pytest.raises(ValueError, match="camera curve is 'rec709'"):
        Camera(curve="rec709")
    with pytest.raises(ValueError, match="highlights"):
        Camera(highlights=0.5)


@pytest.mark.parametrize("curve", [1, 2.2, "srgb"])
def test_light_and_display_values_are_inverse(curve):
    values = torch.linspace(0, 1, 101)
    assert torch.allclose(to_display(to_light(values, curve), curve), values, atol=1e-5)
    if curve == "srgb":
        assert to_light(torch.tensor(0.5), curve) == pytest.approx(0.21404, abs=1e-5)


@pytest.mark.parametrize("curve", [1, 2.2, "srgb"])
def test_a_noiseless_camera_keeps_a_constant_image(curve):
    images = torch.tensor([0.0, 0.4, 1.0]).reshape(3, 1, 1, 1).expand(3, 3, 20, 20)
    drawn, _ = draw_kernels(3, generator(), MIX, size=15)
    photograph = Camera(curve=curve, highlights=4).capture(images, drawn, generator())
    assert torch.allclose(photograph, images, atol=2e-3)


def test_averaging_light_is_brighter_than_averaging_display_values():
    image = torch.zeros(1, 3, 30, 30)
    image[..., 15:] = 0.9
    kernel = Blur("box", 9).kernel(9)[None]
    in_display, in_light = (Camera(curve=curve).capture(image, kernel, generator()) for curve in (1, 2.2))
    assert (in_light - in_display).min() > -1e-3 and (in_light - in_display).max() > 0.1


def test_bright_highlights_stay_clipped_where_they_smear():
    image = torch.full((1, 3, 31, 31), 0.2)
    image[..., 15, 15] = 1
    kernel = Blur("line", 9, angle=0).kernel(11)[None]
    plain, bright = (Camera(highlights=gain).capture(image, kernel, generator()) for gain in (1, 20))
    assert plain[0, 0, 15, 12] < 0.4 and bright[0, 0, 15, 12] == 1 and bright.max() <= 1


def test_noise_has_the_variance_of_its_formula_and_follows_its_generator():
    images = torch.full((1, 3, 200, 200), 0.5)
    kernel = Blur("delta").kernel(3)[None]
    camera = Camera(shot=0.001, read=0.01)
    noisy = camera.capture(images, kernel, generator(5))
    assert noisy.var().item() == pytest.approx(0.001 * 0.5 + 0.01**2, rel=0.03)
    assert torch.equal(noisy, camera.capture(images, kernel, generator(5)))
    assert not torch.equal(noisy, camera.capture(images, kernel, generator(6)))


def test_jpeg_costs_more_at_lower_quality_and_nothing_when_off():
    images = torch.rand(3, 3, 40, 40, generator=generator())
    compressed = compress(images, torch.tensor([0, 90, 10]))
    error = (compressed - images).abs().mean((1, 2, 3))
    assert error[0] == 0 and 0 < error[1] < error[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_convolve_gives_what_the_fft_gives(family):
    drawn, _ = draw_kernels(7, generator(3), {family: 1.0})
    images = torch.rand(7, 3, 60, 71, generator=generator(4))
    fastest, exact = convolution.convolve(images, drawn), convolution.spectral(images.double(), drawn.double())
    assert fastest.shape == exact.shape == (7, 3, 28, 39)
    assert (fastest - exact).abs().max() < 1e-6


def test_kernels_of_one_row_or_column_and_of_any_mass_are_convolved_alike():
    line, box = Blur("line", 9, angle=0).kernel(21), Blur("box", 5).kernel(21)
    drawn = torch.stack([line, line.T, 0.5 * box, 2 * Blur("delta").kernel(21)])
    images = torch.rand(4, 1, 40, 31, generator=generator(4))
    fastest, exact = convolution.convolve(images, drawn), convolution.spectral(images, drawn)
    assert convolution.is_rank_one(drawn).all() and (fastest - exact).abs().max() < 2e-6


def test_rank_and_reach_of_kernels_are_seen():
    drawn = torch.cat([draw_kernels(4, generator(5), {name: 1.0})[0] for name in ("delta", "gaussian", "box", "disc")])
    assert convolution.is_rank_one(drawn).tolist() == [True] * 12 + [False] * 4
    line = Blur("line", 9, angle=0).kernel(33)
    assert convolution.reaches(torch.stack([line, line.T])).tolist() == [[0, 4], [4, 0]]


def test_a_blur_passes_gradients_to_image_and_kernel():
    image, kernel = torch.rand(1, 3, 20, 20, requires_grad=True), Blur("gaussian", 1).kernel(9)[None].requires_grad_()
    kernels.blur(image, kernel).square().sum().backward()
    assert image.grad.abs().min() > 0 and kernel.grad.abs().min() > 0


def test_mixed_precision_leaves_blur_exact():
    image, kernel = torch.rand(1, 3, 40, 40, generator=generator()), Blur("gaussian", 2).kernel(33)[None]
    with torch.autocast("cpu", torch.bfloat16):
        inside = kernels.blur(image, kernel)
    assert torch.equal(inside, kernels.blur(image, kernel))
