"""Readings of a blur that contradict each other cost the result half of its strength."""

from dataclasses import replace

import torch

from bd_diff.blur.kernels import blur, delta, disc, gaussian, line
from bd_diff.reading.confidence import (
    NEAR,
    contradict,
    distances,
    favouring_first,
    seems_path,
    shares,
    uncertain,
)
from bd_diff.reading.kernel_search import circular_gradients

EVEN = torch.tensor([0.02]), torch.tensor([0.02])


def test_a_path_and_its_mirror_image_agree():
    path = torch.zeros(1, 33, 33)
    path[0, 10:20, 14], path[0, 20, 14:22] = 1, 2
    path = path / path.sum()
    assert not torch.equal(path, path.flip(-1))
    assert not contradict(path, path.flip(-2, -1), EVEN)


def test_a_long_and_a_short_path_contradict_each_other_unless_the_search_explains_the_photograph_much_better():
    long, short = line(torch.tensor([21.0]), torch.tensor([0.5])), line(torch.tensor([7.0]), torch.tensor([0.5]))
    assert contradict(long, short, EVEN)
    assert not contradict(long, short, (torch.tensor([0.02]), torch.tensor([0.005])))


def test_every_image_of_a_batch_is_judged_by_itself():
    two = gaussian(torch.tensor([1.0, 1.0]))
    other = gaussian(torch.tensor([1.0, 4.0]))
    residuals = torch.full((2,), 0.02), torch.full((2,), 0.02)
    assert contradict(two, other, residuals).tolist() == [False, True]


def test_a_kernel_is_uncertain_where_another_far_from_it_explains_as_much_unless_it_wins_much():
    path = line(torch.tensor([13.0]), torch.tensor([0.5]))
    moved = path.roll((2, -3), (1, 2))  # the same blur
    near, far = line(torch.tensor([13.0, 13.0]), torch.tensor([0.55, 1.5]))[:, None]
    to_moved, to_near, to_far = distances(path, torch.cat([moved, near, far]))
    assert to_moved.abs() < 1e-4 and 0 < to_near < NEAR * 0.2 < to_far < 1

    def judged(second, third, left, blocks=False):
        return uncertain(torch.cat([far, path, second, third]), torch.tensor(left), 1, blocks)

    assert not judged(moved, near, [1.0, 0.8, 0.8, 0.8])
    assert judged(moved, far, [1.0, 0.8, 0.8, 0.8])
    assert not judged(moved, far, [1.0, 0.8, 0.8, 0.99])  # far, but explains less
    assert judged(moved, near, [1.0, 0.99, 0.99, 0.99])  # wins little
    assert judged(moved, near, [1.0, 0.93, 0.93, 0.93])
    assert not judged(moved, near, [1.0, 0.93, 0.93, 0.93], blocks=True)  # which hide how much is explained


def cloud():
    """What the reader sees of a thick path: neither round nor straight."""
    return blur(gaussian(torch.tensor([2.0]))[None], line(torch.tensor([9.0]), torch.tensor([0.5])))[0]


def test_a_cloud_that_is_neither_round_nor_straight_nor_narrow_seems_a_path():
    thin = torch.nn.functional.pad(cloud()[:, ::3, ::3], (11, 11, 11, 11))  # a third of its size
    straight = line(torch.tensor([13.0]), torch.tensor([0.5]))
    for kernel in (gaussian(torch.tensor([2.5])), disc(torch.tensor([6.0])), straight, delta(1), thin / thin.sum()):
        assert not seems_path(kernel)
    assert seems_path(cloud())


def test_instead_of_a_cloud_another_kernel_is_taken_that_leaves_slightly_less():
    path = line(torch.tensor([13.0]), torch.tensor([1.5]))
    soft = gaussian(torch.tensor([2.5]))
    left = torch.tensor([1.0, 0.95])
    assert favouring_first(torch.cat([soft, path]), left) == 0  # which the reader knows
    assert favouring_first(torch.cat([cloud(), path]), left) == 1
    assert favouring_first(torch.cat([cloud(), cloud()]), left) == 0  # that is the same again
    assert favouring_first(torch.cat([soft, path]), torch.tensor([1.0, 0.9])) == 1
    assert favouring_first(torch.cat([cloud(), path]), torch.tensor([1.0, 0.98])) == 0


def test_kernels_that_agree_are_certain_where_a_cloud_was_read_though_they_explain_little():
    near = line(torch.tensor([9.0, 9.0]), torch.tensor([0.5, 0.55]))
    left = torch.tensor([1.0, 0.95, 0.95])
    for first, expected in ((gaussian(torch.tensor([2.5])), True), (cloud(), False)):
        assert uncertain(torch.cat([first, near]), left, 2, False) == expected
    apart = line(torch.tensor([13.0, 13.0]), torch.tensor([0.0, 1.5]))
    assert uncertain(torch.cat([cloud(), apart]), left, 2, False)


def test_noise_does_not_count_to_what_kernels_leave_unexplained_up_to_a_bound():
    generator = torch.Generator().manual_seed(0)
    white = 0.5 + 0.02 * torch.randn(1, 1, 128, 128, generator=generator)
    of_noise = float(circular_gradients(white).abs().mean())
    residuals = of_noise * torch.tensor([1.5, 1.25, 1.0])
    assert torch.allclose(shares(residuals, [white]), torch.tensor([1, 0.5, 0]), atol=0.04)
    assert torch.allclose(shares(2 * residuals, [white, white]), torch.tensor([1, 0.5, 0]), atol=0.04)
    at_most = (torch.tensor([1, 0.95, 0.9]) - 0.85) / 0.15
    assert torch.allclose(shares(of_noise * 1.1 * torch.tensor([1, 0.95, 0.9]), [white]), at_most, atol=0.01)
    assert torch.allclose(shares(residuals / 2, [white]), torch.tensor([1, 1.25 / 1.5, 1 / 1.5]))  # nothing but noise


def test_what_is_read_without_the_search_is_uncertain_where_nothing_explains_more():
    kernels = line(torch.tensor([13.0, 13.0]), torch.tensor([0.5, 1.5]))
    assert uncertain(kernels, torch.tensor([1.0, 1.03]), 0, False)


def test_an_image_in_doubt_keeps_the_share_that_caution_names(tiny_pipeline, monkeypatch):
    images, read = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), tiny_pipeline.read_at_scales

    def result(doubtful):
        monkeypatch.setattr(tiny_pipeline, "read_at_scales", lambda *given: replace(read(*given), doubtful=doubtful))
        return tiny_pipeline(images, output_type="latent", generator=torch.Generator().manual_seed(0)).images

    sure, torn = result(torch.tensor([False, False])), result(torch.tensor([False, True]))
    given = tiny_pipeline(images, output_type="latent", strength=0.0).images
    assert torch.equal(sure[0], torn[0])
    assert torch.allclose(torn[1], (sure[1] + given[1]) / 2, atol=1e-6) and not torch.allclose(torn[1], sure[1])
