"""What restoring costs is measured, counted and told, in a process of its own."""

import json

import pytest
import torch
from typer.testing import CliRunner

from bd_diff.baselines.uresnet import UResNet
from bd_diff.cli import app
from bd_diff.serving.bench import Case, bench, measure, table


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    UResNet(width=2).save_pretrained(folder)
    return str(folder)


def test_multiplications_are_those_of_the_layers_and_grow_with_the_image(network):
    small, large = (measure(Case(network, side, runs=2, device="cpu")) for side in (32, 64))
    by_hand = 0

    def count(layer, inputs, output):
        nonlocal by_hand
        forward = isinstance(layer, torch.nn.Conv2d)
        by_hand += (output if forward else inputs[0]).numel() * layer.weight[0].numel()

    model = UResNet.from_pretrained(network)
    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert small.gmacs * 1e9 == pytest.approx(by_hand)
    assert large.gmacs == pytest.approx(4 * small.gmacs)


def test_a_batch_costs_an_image_as_much_and_the_spread_holds_the_median(network):
    one, two = (measure(Case(network, 32, batch, runs=3, device="cpu")) for batch in (1, 2))
    assert two.gmacs == pytest.approx(one.gmacs)
    assert two.fastest <= two.median <= two.slowest
    assert two.images_per_second == pytest.approx(2 / two.median)


def test_the_peak_is_that_of_a_process_of_its_own(network):
    hoard = torch.ones(400, 2**18)  # 400 MiB that the case has nothing to do with
    cost = bench(Case(network, 32, runs=1, device="cpu"))
    here = measure(Case(network, 32, runs=1, device="cpu"))
    assert hoard.all() and cost.peak_mib < here.peak_mib - 300


def test_switches_change_how_and_not_what(network, tiny_pipeline_folder):
    for model in (network, str(tiny_pipeline_folder)):
        cost = measure(Case(model, 32, runs=1, device="cpu", dtype="bfloat16", channels_last=True))
        assert cost.gmacs == pytest.approx(measure(Case(model, 32, runs=1, device="cpu")).gmacs)


def test_the_command_prints_a_table_and_writes_json(network, tiny_pipeline_folder, tmp_path):
    out = tmp_path / "costs.json"
    given = ["bench", network, str(tiny_pipeline_folder), "--side", "32", "--runs", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*given, "--out", str(out)], catch_exceptions=False)
    assert "| UResNet | 32x32 |" in result.stdout and "| BD-Diff | 32x32 |" in result.stdout
    found = json.loads(out.read_text())
    assert [cost["system"] for cost in found["costs"]] == ["UResNet", "BD-Diff"] and found["machine"]["threads"] >= 1
    with pytest.raises(ValueError, match="--overwrite"):
        CliRunner().invoke(app, [*given, "--out", str(out)], catch_exceptions=False)


def test_a_memory_that_is_not_known_is_not_made_up(network):
    cost = measure(Case(network, 32, runs=1, device="cpu"))
    unknown = type(cost)(**{**vars(cost), "peak_mib": None})
    assert "unknown" in table([unknown])
