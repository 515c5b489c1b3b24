"""One path of camera poses explains the blur of all windows."""

import torch

from bd_diff.blur.kernels import blur, splat, walk
from bd_diff.data.procedural import procedural_image
from bd_diff.reading.camera_poses import pose_kernels, shifts
from bd_diff.reading.confidence import distances
from bd_diff.reading.kernel_search import gradients_inside

PLACES = torch.tensor([[-0.6, -0.8], [-0.6, 0.8], [0.0, 0.0], [0.6, -0.8], [0.6, 0.8]])  # down, right


def test_kernels_of_a_camera_that_turns_are_found_from_the_one_of_a_camera_that_does_not():
    rows, columns = walk(torch.tensor([12.0]), torch.Generator().manual_seed(1))[0]
    roll = walk(torch.tensor([8.0]), torch.Generator().manual_seed(2))[0, 0]
    true = splat(rows + PLACES[:, 1:] * roll, columns - PLACES[:, :1] * roll)
    sharp = torch.stack([procedural_image(128, torch.Generator().manual_seed(at), "leaves")[:1] for at in range(5)])
    found = pose_kernels(gradients_inside(sharp), blur(sharp, true), splat(rows[None], columns[None]), PLACES)
    assert found.shape == true.shape and torch.allclose(found.sum((1, 2)), torch.ones(5), atol=1e-5)
    for place in (0, 1, 3, 4):  # farthest from the middle
        missed = [distances(true[place, None], other[place, None]) for other in (found, true[2].expand(5, -1, -1))]
        assert missed[0] < 0.5 * missed[1]


def test_a_shift_by_whole_pixels_moves_an_image():
    image = torch.rand(1, 20, 20)
    moved = torch.fft.irfft2(torch.fft.rfft2(image) * shifts(torch.tensor([[2.0, -3.0]]), 20), s=(20, 20))
    assert torch.allclose(moved, image.roll((2, -3), (1, 2)), atol=1e-5)
