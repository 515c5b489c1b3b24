import pytest
import torch
from bd_diff_toys.adarevd import noise, toy

from bd_diff.baselines.adarevd_objective import (
    ClassifierObjective,
    RestorationObjective,
    frequency_loss,
    measure_exits,
)
from bd_diff.baselines.exits import psnr
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.training.pairs import BlurConfig

PAIR = {"blurry": noise(2, 3, 16, 16), "sharp": noise(2, 3, 16, 16, seed=1)}


def generator():
    return torch.Generator().manual_seed(0)


def test_the_frequency_loss_is_the_l1_of_pixels_and_a_hundredth_of_that_of_the_spectrum():
    first, second = PAIR["blurry"], PAIR["sharp"]
    spectra = torch.fft.rfft2(first), torch.fft.rfft2(second)
    expected = (first - second).abs().mean() + 0.01 * (spectra[0] - spectra[1]).abs().mean()
    torch.testing.assert_close(frequency_loss(first, second), expected)


def test_restoration_averages_the_loss_over_every_depth():
    network = toy(3)
    losses = [frequency_loss(result, PAIR["sharp"]) for result in network.every_depth(PAIR["blurry"])]
    found = RestorationObjective(network, BlurConfig())(PAIR, generator())
    torch.testing.assert_close(found["loss"], sum(losses) / 3)
    torch.testing.assert_close(found["last"], losses[-1])


def test_restoration_trains_a_nafnet_on_blur_made_from_sharp_crops():
    network = NAFNet(4, (1, 1), 1, (1, 1))
    objective = RestorationObjective(network, BlurConfig())
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = objective({"sharp": noise(2, 3, 48, 48)}, generator())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_the_encoder_is_unchanged_by_a_training_step():
    network = toy(2).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-2)
    RestorationObjective(network, BlurConfig())(PAIR, generator())["loss"].backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"scales", "decoders", "heads"}


def test_only_the_classifier_learns_in_its_stage_and_it_learns():
    network = toy(2, classifier_features="e3", thresholds=(10.0, 30.0))
    objective = ClassifierObjective(network, BlurConfig())
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"classifier"}
    sharp = noise(4, 3, 16, 16)
    batch = {"sharp": sharp, "blurry": torch.cat([sharp[:2], noise(2, 3, 16, 16, seed=5)])}  # classes 2, 2, 0, 0
    optimizer = torch.optim.AdamW(network.classifier.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        found = objective(batch, generator())
        found["loss"].backward()
        optimizer.step()
    assert found["accuracy"] == 1


def test_a_classifier_is_needed_for_its_stage():
    with pytest.raises(ValueError, match="call add_classifier first"):
        ClassifierObjective(toy(2), BlurConfig())


def test_exits_are_measured_per_class_and_kept_in_the_config():
    network = toy(2, classifier_features="e3", thresholds=(10.0, 30.0))
    named = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # the classifier says 1, 2, 1
    network.classifier.register_forward_hook(lambda *_: named)
    blurry, sharp = noise(3, 3, 16, 16), noise(3, 3, 16, 16, seed=9)  # below 10 dB: in truth all of class 0
    measured = measure_exits(network, [(blurry, sharp)] * 2)
    assert measured.counts.tolist() == [0, 4, 2]
    assert measured.confusion.tolist() == [[0, 4, 2], [0, 0, 0], [0, 0, 0]]
    for depth, result in enumerate([blurry, *network.every_depth(blurry)]):
        decibels = psnr(result.clamp(0, 1), sharp)
        assert measured.psnr[1, depth].item() == pytest.approx(decibels[[0, 2]].mean().item(), abs=1e-4)
        assert measured.psnr[2, depth].item() == pytest.approx(decibels[1].item(), abs=1e-4)
    assert network.config.exit_counts == [0, 4, 2]
    assert network.set_exits(0.1)[0] == 2  # never seen: in full
    assert measured.report().startswith("accuracy 0.000 (always the commonest class: 1.000)")
