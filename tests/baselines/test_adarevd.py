import pytest
import torch
from bd_diff_toys.adarevd import noise, toy
from bd_diff_toys.released_layouts import adarevd_forward, adarevd_state, classifier_forward, classifier_state

from bd_diff.baselines.adarevd import AdaRevD, convert_released
from bd_diff.baselines.nafnet import NAFNet


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "variant, trained, total",
    [("S", 34_202_438, 96_835_462), ("B", 68_402_892, 131_035_916), ("L", 136_803_800, 199_436_824)],
)
def test_parameter_counts_of_the_variants(variant, trained, total):
    with torch.device("meta"):
        network = AdaRevD(variant)
    assert size(network) == total
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trained


@pytest.mark.parametrize(
    "width, encoder, decoder, head, scales, classifier",
    [
        (64, 62_633_024, 17_098_496, 1_731, 1_984, 10_001_932),
        (32, 15_789_600, 4_286_336, 867, 992, 2_510_604),
        (16, 4_013_072, 1_077_440, 435, 496, 632_716),
    ],
)
def test_parameter_counts_of_the_parts(width, encoder, decoder, head, scales, classifier):
    with torch.device("meta"):
        network = AdaRevD(1, width, classifier_features="e3")
    parts = network.encoder, network.decoders, network.heads, network.scales, network.classifier
    assert [size(part) for part in parts] == [encoder, decoder, head, scales, classifier]


def test_parameter_counts_inside_a_sub_decoder_and_of_the_cheap_one():
    with torch.device("meta"):
        network = AdaRevD("S", block=["fourier", "naf"])
    assert [size(level) for level in network.decoders[0].levels] == [12_869_632, 3_223_552, 808_960, 195_392]
    assert size(network.decoders[0].alphas) == 960 and size(network.decoders[1]) == 5_945_856


@pytest.mark.parametrize("height, width", [(16, 16), (32, 32), (33, 61), (5, 3), (40, 200)])
def test_any_size_comes_back_at_its_size_and_without_seams_of_zero(height, width):
    network = toy(2)
    images = noise(2, 3, height, width)
    restored = network.restore(images)
    assert restored.images.shape == images.shape
    for head in network.heads:  # a constant residual must come back whole, borders and overlaps included
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.ones_(head.bias)
    torch.testing.assert_close(network.restore(images).images, images + 1)


def test_an_image_of_one_tile_is_restored_as_in_training():
    network, images = toy(3), noise(2, 3, 30, 32)
    torch.testing.assert_close(network(images), network.every_depth(images)[-1])
    torch.testing.assert_close(network(images), network.train()(images))


def test_tiles_of_a_large_image_do_not_depend_on_how_many_are_run_at_once():
    network, images = toy(2), noise(1, 3, 70, 90)
    torch.testing.assert_close(
        network.restore(images, tiles_at_once=1).images, network.restore(images, tiles_at_once=99).images
    )


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_forced_depth_gives_that_head_and_zero_gives_the_images_back(depth):
    network, images = toy(3), noise(1, 3, 32, 32)
    results = [images, *network.every_depth(images)]
    torch.testing.assert_close(network.restore(images, depth=depth).images, results[depth])


def with_exits(table, **settings):
    return toy(3, classifier_features="e3", thresholds=(20.0, 30.0), exit_table=table, **settings)


def test_a_table_of_full_depth_changes_nothing_to_the_bit():
    images = noise(1, 3, 70, 90)
    assert torch.equal(with_exits([3, 3, 3])(images), with_exits(None)(images))


def test_each_tile_leaves_where_its_class_says_and_the_report_counts_it():
    network = with_exits([3, 1, 0])
    images = noise(2, 3, 70, 90)
    forced = iter([0, 1, 2] * 20)
    network.classifier.register_forward_hook(
        lambda _, inputs, logits: torch.nn.functional.one_hot(torch.tensor([next(forced) for _ in logits]), 3).float()
    )
    restored = network.restore(images)
    tiles = restored.depths.shape[1]
    assert restored.depths.flatten().tolist() == ([3, 1, 0] * 2 * tiles)[: 2 * tiles]
    report = restored.report()[0]
    assert report["tiles"] == tiles and sum(report["exits"].values()) == tiles
    assert report["mean_depth"] == pytest.approx(restored.depths[0].float().mean().item())


def test_exits_are_derived_from_what_was_measured_and_saved_with_the_network(tmp_path):
    network = with_exits(
        None, exit_psnr=[[20, 22, 23, 23.5], [30, 31, 31.01, 31.0], [40, 40, 40, 40]], exit_counts=[1] * 3
    )
    assert network.set_exits(tau=0.1) == [3, 1, 0]
    network.save_pretrained(tmp_path)
    loaded = AdaRevD.from_pretrained(tmp_path)
    images = noise(1, 3, 70, 90)
    assert loaded.config.exit_table == [3, 1, 0]
    torch.testing.assert_close(loaded(images), network(images))  # weights lie elsewhere in memory: not to the bit
    assert loaded.set_exits(tau=0.6) == [2, 1, 0]


def test_the_encoder_runs_once_per_image_and_gets_no_gradient():
    network, calls = toy(2), []
    network.encoder.register_forward_hook(lambda *_: calls.append(1))
    network.restore(noise(2, 3, 70, 90))
    assert len(calls) == 2
    network.train()(noise(1, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(scale.grad is not None for scale in network.scales)


def test_the_encoder_of_a_trained_nafnet_is_taken_over_and_another_width_is_named():
    network = AdaRevD(1, 4, enc_blocks=(1, 1), layers=(1, 1), tile=32, overlap=8)
    nafnet = NAFNet(4, (1, 1), 1, (1, 1))
    network.load_encoder(nafnet)
    assert torch.equal(network.encoder.intro.weight, nafnet.encoder.intro.weight)
    with pytest.raises(ValueError, match=r"intro.weight is \(8, 3, 3, 3\) and should be \(4, 3, 3, 3\)"):
        network.load_encoder(NAFNet(8, (1, 1), 1, (1, 1)))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"variant": "XL"}, "choose from S, B, L"),
        ({"backend": "magic"}, "choose from plain, checkpoint, reversible"),
        ({"tile": 50}, "multiples of 4"),
        ({"layers": (1, 1, 1)}, "layers has 3 levels and enc_blocks 2"),
        ({"block": "conv"}, "choose from fourier, naf"),
        ({"block": ["naf"]}, "names 1 sub-decoders and variant 3 has 3"),
        ({"classifier_features": "e5"}, "choose 'e3'"),
        ({"exit_table": [1, 2]}, "needs a classifier"),
        ({"classifier_features": "e4", "exit_table": [1, 2]}, "must give 6 classes a depth from 0 to 3"),
        ({"classifier_features": "e4", "thresholds": [30, 20]}, "must rise"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        toy(**settings)


RELEASED = {"enc": (1, 2, 1, 1), "middle": 1, "layers": (1, 2, 1, 1), "blocks": ("fourier", "naf")}


def test_a_released_checkpoint_computes_what_the_released_network_computes():
    state = adarevd_state(8, **RELEASED)
    images = noise(2, 3, 32, 48)
    network = convert_released({"params": state, "params_ema": {}})
    wanted = adarevd_forward(state, images, **RELEASED)
    assert network.config.variant == "S" and list(network.config.block) == ["fourier", "naf"]
    assert wanted[-1].sub(images).abs().max() > 0.01
    with torch.no_grad():
        for found, result in zip(network.every_depth(images), wanted, strict=True):
            torch.testing.assert_close(found, result, atol=1e-4, rtol=0)
        torch.testing.assert_close(network(images), wanted[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("features, inside", [("e3", False), ("e3", True), ("e4", False)])
def test_a_released_classifier_is_recognised_by_its_shapes(features, inside):
    state, parts = adarevd_state(8, **RELEASED), classifier_state(128, 6, features)
    if inside:
        network = convert_released({"params": state | {f"ape.{key}": parts[key] for key in parts}})
    else:
        network = convert_released({"params": state}, parts, exit_table=[2, 2, 1, 1, 1, 1])
    assert network.config.classifier_features == features and len(network.config.thresholds) == 5
    bottleneck, levels = network.encode(noise(2, 3, 32, 32))
    wanted = classifier_forward(parts, levels[0] if features == "e3" else bottleneck)
    torch.testing.assert_close(network.classify(bottleneck, levels), wanted, atol=1e-4, rtol=0)


def test_a_checkpoint_of_another_kind_or_class_count_says_what_differs():
    state = adarevd_state(8, **RELEASED)
    with pytest.raises(ValueError, match="not an AdaRevD checkpoint"):
        convert_released({"params": {"intro.weight": torch.zeros(1)}})
    with pytest.raises(ValueError, match="UFPNet encoder, which is not implemented"):
        convert_released(state | {"encoder.flow.alpha": torch.zeros(1)})
    with pytest.raises(ValueError, match="has 7 classes, which no published thresholds make"):
        convert_released(state, classifier_state(128, 7, "e3"))
    with pytest.raises(ValueError, match="has 6 classes; give 5 thresholds, not 2"):
        convert_released(state, classifier_state(128, 6, "e3"), thresholds=[20, 30])
    with pytest.raises(ValueError, match=r"classifier.down.weight is \(256, 128, 2, 2\)"):
        convert_released(state, classifier_state(256, 6, "e3"))
    with pytest.raises(ValueError, match="depth from 0 to 2"):
        convert_released(state, classifier_state(128, 6, "e3"), exit_table=[3] * 6)
    del state["subdenets.1.alpha2"]
    with pytest.raises(ValueError, match=r"decoders.1.alphas.2 is missing"):
        convert_released(state)
