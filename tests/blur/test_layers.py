"""Things that move by themselves: layers that hide each other, averaged over the exposure."""

import pytest
import torch

from bd_diff.blur.camera import Camera, to_light
from bd_diff.blur.kernels import blur, splat, walk
from bd_diff.blur.layers import AREA, Layer, expose, moving_thing, outline, shift, still

PLAIN = Camera()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(seed=0, shaken=True):
    images = torch.rand(2, 3, 90, 120, generator=seeded(seed))
    return moving_thing(*images, seeded(seed), shaken)


def test_one_layer_is_blurred_as_by_the_kernel_of_its_path():
    image, path = torch.rand(3, 80, 70, generator=seeded()), walk(torch.tensor([14.0]), seeded(1))[0]
    layers = [Layer(image, torch.ones(1, 80, 70), path)]
    kernel = splat(path[0][None], path[1][None], 33)
    assert torch.allclose(expose(layers, PLAIN, seeded())[None], blur(image[None], kernel, "replicate"), atol=1e-4)


def test_a_scene_that_does_not_move_is_the_truth():
    layers = [Layer(one.image, one.mask, 0 * one.path) for one in scene()]
    assert torch.allclose(expose(layers, PLAIN, seeded()), still(layers), atol=1e-5)


def test_a_background_that_stands_still_is_sharp_where_the_thing_never_is():
    layers = scene(shaken=False)
    blurry, truth = expose(layers, PLAIN, seeded()), still(layers)
    far = torch.nn.functional.max_pool2d(layers[1].mask, 31, 1, 15) == 0
    assert far.any() and torch.allclose((blurry * far), (truth * far), atol=1e-5)
    assert (blurry - truth)[:, layers[1].mask[0] == 1].abs().mean() > 0.05


def test_light_is_averaged_not_display_values():
    path = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    edge = (torch.arange(40) < 20).float().expand(3, 30, 40)
    lit = expose([Layer(edge, torch.ones(1, 30, 40), path)], Camera("srgb"), seeded())
    assert torch.allclose(to_light(lit, "srgb")[..., 20], torch.tensor(0.5), atol=1e-4)


def test_what_is_behind_shows_for_a_part_of_the_exposure_at_a_border():
    mask = (torch.arange(40) < 20).float().expand(1, 30, 40)
    black, white, path = torch.zeros(3, 30, 40), torch.ones(3, 30, 40), torch.tensor([[0.0] * 4, [-4.0, -2, 0, 2]])
    seen = expose([Layer(white, torch.ones_like(mask), 0 * path), Layer(black, mask, path)], PLAIN, seeded())
    assert seen[0, 0, 14:24].tolist() == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]


def test_images_are_moved_by_fractions_of_pixels():
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(shift(image, torch.tensor([2.0, -1.0]))[..., 2:, :-1], image[..., :-2, 1:])
    between = shift(image, torch.tensor([0.25, 0.0]))
    assert torch.allclose(between[..., 1:, :], 0.75 * image[..., 1:, :] + 0.25 * image[..., :-1, :])


@pytest.mark.parametrize("seed", range(5))
def test_a_thing_covers_its_share_of_the_image(seed):
    area = float(outline(200, 300, 0.2, seeded(seed)).mean())
    assert AREA[0] < area < 1.7 * AREA[1]


def test_images_of_two_sizes_make_no_scene():
    with pytest.raises(ValueError, match="give one size"):
        moving_thing(torch.rand(3, 90, 120), torch.rand(3, 90, 121), seeded())
