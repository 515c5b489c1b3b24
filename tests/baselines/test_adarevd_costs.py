import pytest
import torch
from bd_diff_toys.adarevd import noise, toy

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.backend_costs import Chain, step_seconds
from bd_diff.baselines.exit_costs import (
    Costs,
    Outcome,
    at_equal_macs,
    every_tile,
    oracle_depths,
    outcome,
    shuffled,
)
from bd_diff.data.tiles import Grid


@pytest.fixture(scope="module")
def network():
    return toy(2, classifier_features="e3", thresholds=(20.0, 30.0), exit_table=[2, 1, 0])


@pytest.fixture(scope="module")
def case(network):
    return every_tile(network, noise(3, 50, 70), noise(3, 50, 70, seed=1))


def test_multiplications_of_the_parts_are_the_published_ones():
    with torch.device("meta"):
        network = AdaRevD(1, classifier_features="e3")
    costs = Costs(network)
    found = [costs.count(part, 256, 256) / 1e9 for part in ("encoder", "step", "head", "classifier")]
    assert found == pytest.approx([54.2, 28.03, 0.113, 2.15], abs=0.06)


def test_an_image_costs_its_encoder_its_steps_and_its_classifier(network):
    costs, grid = Costs(network), Grid(52, 72, 32, 8)
    step, head, classifier = (costs.count(part, 32, 32) for part in ("step", "head", "classifier"))
    depths = [0, 1, 2, 0, 0, 0]
    assert costs.tiled(grid, depths, False) == costs.count("encoder", 52, 72) + 3 * step + 2 * head
    assert costs.tiled(grid, depths, True) - costs.tiled(grid, depths, False) == 6 * classifier
    assert costs.untiled(grid) > costs.count("encoder", 52, 72)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_an_image_put_together_scores_as_the_restored_one(network, case, depth):
    restored = network.restore(case.blurry[None], depth=depth).images[0].clamp(0, 1)
    expected = -10 * (restored - case.sharp).square().mean().log10().item()
    assert case.score([depth] * len(case.grid)) == pytest.approx(expected, abs=1e-3)


def test_classes_are_those_that_restoring_uses(network, case):
    depths = network.restore(case.blurry[None]).depths[0].tolist()
    assert [[2, 1, 0][found] for found in case.classes] == depths
    found = outcome([case], [depths], Costs(network), classified=True)
    assert found.mean_depth == sum(depths) / len(depths)


def test_the_oracle_stops_each_tile_where_its_own_gain_falls_below_tau(case):
    case.psnr = torch.tensor([[10.0, 12.0, 12.01], [10.0, 10.0, 15.0], [10.0, 11.0, 12.0]])
    assert oracle_depths(case, tau=0.05) == [1, 0, 2]


def test_shuffling_keeps_the_depths():
    depths = [[0, 1, 2], [3, 4], list(range(5, 20))]
    mixed = shuffled(depths, torch.Generator().manual_seed(0))
    assert [len(chosen) for chosen in mixed] == [3, 2, 15] and mixed != depths
    assert sorted(sum(mixed, [])) == list(range(20))


def test_uniform_depths_are_mixed_between_two_of_them():
    uniform = {0: Outcome(0, 10.0, 20.0), 1: Outcome(1, 20.0, 30.0)}
    assert [at_equal_macs(uniform, macs) for macs in (5, 10, 15, 20, 25)] == [20, 20, 25, 30, 30]


def test_a_step_takes_time():
    assert 0 < step_seconds(Chain(1, width=2, side=8, batch=1), "reversible") < 10
