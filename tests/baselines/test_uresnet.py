import pytest
import torch

from bd_diff.baselines.uresnet import UResNet
from bd_diff.restore import NetworkRestorer

TABLE = {
    "conv2d": 448,
    "conv2d_1": 11_008,
    "conv2d_2": 92_288,
    "residual_block": 333_184,
    "residual_block_1": 312_704,
    "conv2d_transpose": 147_584,
    "conv2d_transpose_1": 73_792,
    "conv2d_9": 1_731,
}


def stirred(width: int = 2) -> UResNet:
    """A narrow network whose last layer is not at its start, where the network does nothing."""
    network = UResNet(width=width).eval()
    torch.nn.init.normal_(network.conv2d_9.weight, std=0.05)
    return network


def keras_count(layer: torch.nn.Module) -> int:
    """Parameters and running statistics; torch's own step counter does not exist in Keras."""
    return sum(tensor.numel() for name, tensor in layer.state_dict().items() if "num_batches" not in name)


def test_every_layer_has_the_parameters_of_the_published_table():
    assert {name: keras_count(layer) for name, layer in UResNet().named_children()} == TABLE


def test_the_network_has_972739_values():
    assert keras_count(UResNet()) == 972_739 == sum(TABLE.values())


@pytest.mark.parametrize("size", [(16, 16), (20, 36)])
def test_an_image_comes_back_at_its_size(size):
    images = torch.rand(2, 3, *size)
    assert stirred()(images).shape == images.shape


def test_an_untrained_network_leaves_images_as_they_are():
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(UResNet(width=2)(images), images)


def test_every_layer_is_used():
    network = stirred().train()
    network(torch.rand(2, 3, 16, 16)).square().mean().backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_a_saved_network_gives_the_same_output(tmp_path):
    images, network = torch.rand(1, 3, 16, 16), stirred()
    network.save_pretrained(tmp_path)
    assert torch.equal(UResNet.from_pretrained(tmp_path)(images), network(images))


def test_tiles_give_what_the_whole_image_gives_but_for_their_seams(monkeypatch):
    torch.manual_seed(0)
    restore = NetworkRestorer(stirred())
    images = torch.rand(2, 3, 150, 202)
    whole = restore(images)
    seen = []
    monkeypatch.setattr(UResNet, "tiling", (96, 64))
    restore.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].shape))
    tiled = restore(images)
    assert set(seen) == {(1, 3, 96, 96)}
    assert tiled.shape == images.shape and (tiled - whole).abs().max() < 1e-3
    assert not torch.equal(tiled, images)
