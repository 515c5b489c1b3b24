"""The poses of a camera that turned explain the blur of windows all over the photograph."""

import pytest
import torch

from bd_diff.blur.kernels import blur, delta, splat, walk
from bd_diff.data.procedural import procedural_image
from bd_diff.reading.camera_poses import Poses, find_poses
from bd_diff.reading.confidence import distances

PLACES = torch.tensor([[-0.6, -0.8], [-0.6, 0.8], [0.0, 0.0], [0.6, -0.8], [0.6, 0.8]])  # down, right


@pytest.fixture(scope="module")
def sharp():
    drawn = (procedural_image(128, torch.Generator().manual_seed(at), "leaves")[:1] for at in range(5))
    return torch.stack([*drawn])


def path(turned):
    rows, columns = walk(torch.tensor([12.0]), torch.Generator().manual_seed(1))[0]
    roll = turned * walk(torch.tensor([8.0]), torch.Generator().manual_seed(2))[0, 0]
    return splat(rows + PLACES[:, 1:] * roll, columns - PLACES[:, :1] * roll)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_kernels_of_a_camera_that_turned_are_found_from_the_one_in_the_middle(sharp, mode):
    true = path(1.0)
    with mode():
        found = find_poses(blur(sharp, true), torch.ones_like(sharp) > 0, PLACES, true[2:3]).kernels(PLACES)
    assert torch.allclose(found.sum((1, 2)), torch.ones(5), atol=1e-5)
    middle = true[2].expand(5, -1, -1)
    missed = [
        sum(distances(*pair) for pair in zip(true.split(1), other.split(1), strict=True)) for other in (found, middle)
    ]
    assert missed[0] < 0.85 * missed[1]


def test_the_same_windows_tell_the_same_poses(sharp):
    blurry, kernel = blur(sharp, path(0.0)), path(0.0)[:1]
    one, other = (find_poses(blurry, torch.ones_like(sharp) > 0, PLACES, kernel) for _ in range(2))
    assert torch.equal(one.logits, other.logits) and torch.equal(one.middle, other.middle)


def test_no_blur_moves_with_the_angle_and_not_in_the_middle():
    poses = Poses.of(delta(1)[0])
    only = torch.full_like(poses.logits, -100.0)
    only[:, -1] = 100.0  # the largest angle: 8 pixels at the farther edge
    turned = Poses(poses.points, poses.time, poses.angles, only, poses.middle, poses.size)
    places = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    there = [divmod(int(kernel.argmax()), 33) for kernel in turned.kernels(places)]
    assert there == [(16, 16), (24, 16), (16, 12)]
