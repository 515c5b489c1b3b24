import pytest
import torch
from bd_diff_toys.adarevd import noise, toy

from bd_diff.baselines.exits import degradation_class, derive_exit_table, psnr, run_to_depths


def off_by(decibels):
    """An image and one whose PSNR against it is `decibels`."""
    sharp = torch.full((1, 3, 8, 8), 0.4, dtype=torch.float64)
    return sharp + 10 ** (-decibels / 20), sharp


@pytest.mark.parametrize("decibels, expected", [(15, 0), (19.9, 0), (20.1, 1), (29, 2), (39.9, 4), (41, 5), (200, 5)])
def test_the_class_is_the_number_of_thresholds_below_the_psnr(decibels, expected):
    assert degradation_class(*off_by(decibels)).tolist() == [expected]


def test_a_psnr_equal_to_a_threshold_does_not_pass_it():
    blurry, sharp = off_by(20)
    assert degradation_class(blurry, sharp, thresholds=[psnr(blurry, sharp).item()]).tolist() == [0]


def test_the_table_stops_before_the_first_gain_below_tau():
    means = [[20.0, 22.0, 23.0, 23.02, 24.0], [40.0, 40.01, 40.02, 40.03, 40.04], [30.0, 31.0, 31.5, 31.8, 31.9]]
    assert derive_exit_table(means, [5, 5, 5], tau=0.05) == [2, 0, 4]
    assert derive_exit_table(means, [5, 5, 5], tau=0.4) == [2, 0, 2]
    assert derive_exit_table(means, [5, 5, 5], tau=0.0) == [4, 4, 4]


def test_a_class_that_was_never_seen_runs_in_full():
    assert derive_exit_table([[0.0, 0.0, 0.0]], [0], tau=0.1) == [2]


def test_leaving_early_in_a_batch_equals_running_each_item_alone_to_its_depth():
    network = toy(3)
    images = noise(5, 3, 16, 16)
    bottleneck, state = network.encode(images)
    depths = torch.tensor([2, 0, 3, 1, 2])
    together = run_to_depths(network.decoders, network.heads, bottleneck, state, depths)
    every = [torch.zeros_like(images)] + [result - images for result in network.every_depth(images)]
    for index, depth in enumerate(depths):
        torch.testing.assert_close(together[index], every[depth][index], atol=1e-5, rtol=0)
    assert not together[1].any() and together[0].abs().max() > 1e-3


def test_sub_decoders_run_only_for_the_items_that_stay():
    network, seen = toy(3), []
    for decoder in network.decoders:
        decoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    bottleneck, state = network.encode(noise(4, 3, 16, 16))
    run_to_depths(network.decoders, network.heads, bottleneck, state, torch.tensor([1, 0, 2, 1]))
    assert seen == [3, 1]


def test_a_negative_tau_is_refused():
    with pytest.raises(ValueError, match="tau is -1"):
        derive_exit_table([[0.0, 1.0]], [1], tau=-1)
