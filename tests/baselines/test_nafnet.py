import pytest
import torch
from bd_diff_toys.adarevd import awake, noise
from bd_diff_toys.released_layouts import naf_keys, nafnet_forward, nafnet_state

from bd_diff.baselines.nafnet import NAFBlock, NAFNet, convert_released, local_mean


@pytest.mark.parametrize(
    "width, total, encoder", [(64, 67_888_835, 62_633_024), (32, None, 15_789_600), (16, None, 4_013_072)]
)
def test_parameter_counts_are_those_of_the_released_networks(width, total, encoder):
    with torch.device("meta"):
        network = NAFNet(width)
    assert sum(parameter.numel() for parameter in network.encoder.parameters()) == encoder
    assert total is None or sum(parameter.numel() for parameter in network.parameters()) == total


def test_a_new_block_passes_its_input_on():
    features = noise(1, 8, 6, 6)
    assert torch.equal(NAFBlock(8)(features), features)


@pytest.mark.parametrize("height, width", [(16, 16), (17, 30), (5, 3), (40, 7)])
def test_any_size_comes_back_at_its_size(height, width):
    network = awake(NAFNet(4, (1, 1), 1, (1, 1)))
    assert network(noise(1, 3, height, width)).shape == (1, 3, height, width)


@pytest.mark.parametrize("height, width, window", [(9, 12, 5), (9, 12, 10), (6, 7, 4)])
def test_local_mean_is_the_sliding_mean_repeated_to_the_border(height, width, window):
    features = noise(2, 3, height, width, dtype=torch.float64)
    kernel = min(window, height), min(window, width)
    inside = torch.nn.functional.avg_pool2d(features, kernel, stride=1)
    above, left = (height - inside.shape[-2]) // 2, (width - inside.shape[-1]) // 2
    rows = (torch.arange(height) - above).clamp(0, inside.shape[-2] - 1)
    columns = (torch.arange(width) - left).clamp(0, inside.shape[-1] - 1)
    torch.testing.assert_close(local_mean(features, window), inside[..., rows, :][..., columns])


def test_local_mean_is_global_where_the_window_covers_the_map():
    features = noise(1, 3, 6, 9)
    mean = features.mean((-2, -1), keepdim=True)
    assert torch.equal(local_mean(features, 9), mean) and torch.equal(local_mean(features, None), mean)


def test_local_pooling_changes_nothing_on_images_no_larger_than_the_window():
    network, local = NAFNet(4, (1, 1), 1, (1, 1)), NAFNet(4, (1, 1), 1, (1, 1), pool_window=32)
    local.load_state_dict(awake(network).state_dict())
    small, large = noise(1, 3, 32, 32), noise(1, 3, 32, 64)
    torch.testing.assert_close(local(small), network(small))
    assert (local(large) - network(large)).abs().max() > 1e-6


def test_a_saved_network_loads_and_gives_the_same_image(tmp_path):
    network = awake(NAFNet(4, (1, 2), 1, (1, 1))).eval()
    network.save_pretrained(tmp_path)
    images = noise(1, 3, 20, 24)
    torch.testing.assert_close(NAFNet.from_pretrained(tmp_path)(images), network(images))


@pytest.mark.parametrize("wrap", [lambda s: {"params": s}, lambda s: {"state_dict": {f"module.{k}": s[k] for k in s}}])
def test_a_released_checkpoint_computes_what_the_released_network_computes(wrap):
    blocks = {"enc": (1, 2, 1), "middle": 2, "dec": (1, 1, 2)}
    state = nafnet_state(8, **blocks)
    images = noise(2, 3, 24, 20)
    with torch.no_grad():
        found = convert_released(wrap(state))(images)
    torch.testing.assert_close(found, nafnet_forward(state, images, **blocks), atol=1e-4, rtol=0)


def test_the_width_64_layout_is_read_strictly():
    with torch.device("meta"):
        state = nafnet_state(64, (1, 1, 1, 28), 1, (1, 1, 1, 1))
        network = convert_released({"params": state})
    assert network.config.width == 64 and list(network.config.enc_blocks) == [1, 1, 1, 28]


def test_a_checkpoint_of_something_else_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="not a NAFNet checkpoint"):
        convert_released({"params": {"conv.weight": torch.zeros(1)}})


def test_a_missing_tensor_is_named():
    state = nafnet_state(8, (1, 1), 1, (1, 1))
    del state[next(iter(naf_keys("decoders.1.0", 8)))]
    with pytest.raises(ValueError, match=r"levels\.1\.0\.beta is missing"):
        convert_released(state)
