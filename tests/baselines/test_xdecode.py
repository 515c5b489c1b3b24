import pytest
import torch
import torch.nn.functional as F

from bd_diff.baselines.xdecode import Discriminator, DiscriminatorObjective, Generator, GeneratorObjective
from bd_diff.restore import NetworkRestorer
from bd_diff.training.losses import Perceptual
from bd_diff.training.pairs import BORDER, BlurConfig

# The generator's output for `fixed_weights` and `fixed_pixels`, from `generator_by_equations` in float64.
FIXTURE = {(0, 0, 0): 0.044192, (0, 100, 200): -0.011901, (1, 17, 255): 0.386733, (2, 255, 128): -0.056563}


def fixed(name: str, shape: torch.Size) -> torch.Tensor:
    """Values in a fixed pattern that needs no random generator; variances are positive."""
    count = torch.arange(shape.numel(), dtype=torch.float64)
    values = torch.sin(count * 1.7 + sum(name.encode())).reshape(shape)
    if name.endswith("running_var") or name.endswith("bn.weight"):
        return 1 + 0.3 * values
    return 0.3 * values


def fixed_weights(network: torch.nn.Module) -> dict:
    return {
        name: tensor if tensor.dtype == torch.long else fixed(name, tensor.shape)
        for name, tensor in network.state_dict().items()
    }


def fixed_pixels(channels: int, size: int) -> torch.Tensor:
    return fixed("pixels", torch.Size([1, channels, size, size])) * 3


def batch_norm(hidden, weights, name):
    """Of the specification, in evaluation: (x - mean) / sqrt(var + 1e-5) * weight + bias."""
    mean, var, weight, bias = (
        weights[f"{name}.bn.{part}"].reshape(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (hidden - mean) / torch.sqrt(var + 1e-5) * weight + bias


def generator_by_equations(weights: dict, pixels: torch.Tensor) -> torch.Tensor:
    """The released generator step by step: eight stages down, eight up, LeakyReLU in place as the release has it."""
    features = [F.conv2d(pixels, weights["conv1.conv.weight"], weights["conv1.conv.bias"], 2, 1)]
    for number in range(2, 9):
        F.leaky_relu_(features[-1], 0.2)  # in place: this is also what the skip carries
        name = f"conv{number}"
        hidden = F.conv2d(features[-1], weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], 2, 1)
        features.append(batch_norm(hidden, weights, name) if number < 8 else hidden)
    hidden = features[7]
    for number in range(1, 8):
        name = f"deconv{number}"
        weight, bias = weights[f"{name}.deconv.weight"], weights[f"{name}.deconv.bias"]
        hidden = batch_norm(F.conv_transpose2d(F.relu(hidden), weight, bias, 2, 1), weights, name)
        hidden = torch.cat([hidden, features[7 - number]], 1)
    weight, bias = weights["deconv8.deconv.weight"], weights["deconv8.deconv.bias"]
    return torch.tanh(F.conv_transpose2d(F.relu(hidden), weight, bias, 2, 1))


def discriminator_by_equations(weights: dict, blurry: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    hidden = torch.cat([blurry, candidate], 1)
    for number, stride in enumerate([2, 2, 2, 1, 1], start=1):
        name = f"conv{number}"
        hidden = hidden if number == 1 else F.leaky_relu(hidden, 0.2)
        hidden = F.conv2d(hidden, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], stride, 1)
        hidden = batch_norm(hidden, weights, name) if 1 < number < 5 else hidden
    return hidden


@pytest.fixture(scope="module")
def generator():
    network = Generator(ngf=2).double().eval()
    network.load_state_dict(fixed_weights(network))
    return network


def test_the_generator_gives_the_specification_s_output_for_the_same_weights(generator):
    pixels = fixed_pixels(3, 256)
    with torch.no_grad():
        expected = generator_by_equations(generator.state_dict(), pixels)
        assert (generator(pixels) - expected).abs().max() < 1e-5


def test_the_generator_gives_the_stored_output(generator):
    with torch.no_grad():
        output = generator(fixed_pixels(3, 256))[0]
    assert {place: output[place].item() for place in FIXTURE} == pytest.approx(FIXTURE, abs=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_discriminator_gives_the_specification_s_output_for_the_same_weights(sigmoid):
    network = Discriminator(ndf=2, sigmoid=sigmoid).double().eval()
    network.load_state_dict(fixed_weights(network))
    blurry, candidate = fixed_pixels(3, 64), fixed_pixels(6, 64)[:, 3:]
    with torch.no_grad():
        scores = discriminator_by_equations(network.state_dict(), blurry, candidate)
        assert torch.allclose(network(blurry, candidate), scores.sigmoid() if sigmoid else scores)


def test_the_published_networks_have_the_released_names_and_widths():
    with torch.device("meta"):
        generator, discriminator = Generator(), Discriminator()
    widths = [96, 192, 384, 768, 768, 768, 768, 768]
    assert [generator.get_submodule(f"conv{n}.conv").out_channels for n in range(1, 9)] == widths
    assert [generator.get_submodule(f"deconv{n}.deconv").in_channels for n in range(1, 9)] == [
        768, 1536, 1536, 1536, 1536, 768, 384, 192
    ]  # fmt: skip
    assert [discriminator.get_submodule(f"conv{n}.conv").out_channels for n in range(1, 6)] == [96, 192, 384, 768, 1]
    stages = [f"conv{n}.conv" for n in range(1, 9)] + [f"deconv{n}.deconv" for n in range(1, 9)]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = {f"{stage}.{part}" for stage in stages for part in ("weight", "bias")}
    names |= {f"{stage.split('.')[0]}.bn.{part}" for stage in stages for part in norm}
    assert set(generator.state_dict()) == names


def test_the_first_three_stages_of_the_decoder_drop_out_in_training_only(generator):
    pixels = fixed_pixels(3, 256).expand(2, -1, -1, -1)
    with torch.no_grad():
        assert torch.equal(generator(pixels), generator(pixels))
        trained = Generator(ngf=2).double().train()
        assert not torch.equal(trained(pixels), trained(pixels))


@pytest.mark.parametrize("network", [Generator(ngf=2, depth=4), Discriminator(ndf=2)], ids=["generator", "critic"])
def test_every_weight_that_can_learn_is_used(network):
    """Data-parallel training stops at a parameter without gradient."""
    pixels = torch.rand(2, 3, 64, 64)
    (network(pixels) if isinstance(network, Generator) else network(pixels, pixels)).square().mean().backward()
    assert not [name for name, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]


def test_released_weights_load_from_a_pickled_state_dict(generator, tmp_path):
    torch.save(generator.state_dict(), tmp_path / "generator_99.pkl")
    network = Generator.from_released(tmp_path / "generator_99.pkl")
    pixels = fixed_pixels(3, 256)
    assert torch.allclose(network(pixels.float()).double(), generator(pixels), atol=1e-4)


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda weights: weights.pop("conv3.bn.weight"), "conv3.bn.weight is missing"),
        (lambda weights: weights.update(conv9=torch.zeros(1)), "conv9 is unknown"),
        (lambda weights: weights.update({"conv1.conv.bias": torch.zeros(7)}), r"conv1.conv.bias is \(7,\)"),
    ],
)
def test_a_state_dict_that_does_not_fit_names_the_key(generator, tmp_path, spoil, sentence):
    weights = dict(generator.state_dict())
    spoil(weights)
    torch.save(weights, tmp_path / "generator.pkl")
    with pytest.raises(ValueError, match=sentence):
        Generator.from_released(tmp_path / "generator.pkl")


def test_a_file_that_is_no_state_dict_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "generator.pkl").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="generator.pkl is not a checkpoint"):
        Generator.from_released(tmp_path / "generator.pkl")


def test_a_saved_generator_gives_the_same_output(tmp_path):
    pixels, network = torch.rand(1, 3, 16, 16), Generator(ngf=2, depth=4).eval()
    network.save_pretrained(tmp_path)
    assert torch.equal(Generator.from_pretrained(tmp_path)(pixels), network(pixels))


@pytest.fixture
def rivals():
    torch.manual_seed(0)
    return Generator(ngf=2, depth=4), Discriminator(ndf=2)


@pytest.fixture
def batch():
    return {"sharp": torch.rand(2, 3, 32 + BORDER, 32 + BORDER, generator=torch.Generator().manual_seed(0))}


def learners(network: torch.nn.Module) -> list:
    return [weight for weight in network.parameters() if weight.requires_grad]


def test_the_critic_s_turn_teaches_the_critic_only(rivals, batch):
    generator, discriminator = rivals
    objective = DiscriminatorObjective(discriminator, generator, BlurConfig())
    objective(batch, torch.Generator().manual_seed(1))["loss"].backward()
    assert all(weight.grad is not None for weight in learners(discriminator))
    assert all(weight.grad is None for weight in generator.parameters())
    assert list(objective.parameters()) == list(discriminator.parameters())


def test_the_generator_s_turn_teaches_the_generator_only(rivals, batch):
    generator, discriminator = rivals
    objective = GeneratorObjective(generator, discriminator, BlurConfig(), {"adversarial": 1.0, "l1": 0.0})
    objective(batch, torch.Generator().manual_seed(1))["loss"].backward()
    assert all(weight.grad is not None for weight in learners(generator))
    assert any(weight.grad.any() for weight in learners(generator))  # through the critic: the weight of L1 is 0
    assert all(weight.grad is None for weight in discriminator.parameters())


def test_the_generator_s_loss_is_the_published_sum(rivals, batch):
    generator, discriminator = (network.eval() for network in rivals)
    perceptual = Perceptual(torch.nn.Conv2d(3, 4, 3))
    weights = {"adversarial": 1.0, "l1": 30.0, "perceptual": 1.0}
    objective = GeneratorObjective(
        generator, discriminator, BlurConfig(families={"delta": 1.0}), weights, lambda: perceptual
    )
    values = objective(batch, torch.Generator().manual_seed(1))
    sharp = 2 * batch["sharp"][..., BORDER // 2 : -(BORDER // 2), BORDER // 2 : -(BORDER // 2)] - 1
    restored = generator(sharp)
    expected = (
        -discriminator(sharp, restored).mean()
        + 30 * (restored - sharp).abs().mean()
        + perceptual((restored + 1) / 2, (sharp + 1) / 2)
    )
    assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_loss_of_weight_0_needs_no_weights_of_vgg16(rivals, batch):
    def unavailable():
        raise AssertionError("prepared")

    weights = {"adversarial": 1.0, "l1": 30.0, "perceptual": 0.0}
    objective = GeneratorObjective(*rivals, BlurConfig(), weights, unavailable)
    assert set(objective(batch, torch.Generator())) == {"loss", "adversarial", "l1"}


def test_a_loss_that_does_not_exist_is_refused(rivals):
    with pytest.raises(ValueError, match="no loss 'gan'; the losses are adversarial"):
        GeneratorObjective(*rivals, BlurConfig(), {"gan": 1.0})


def test_an_image_of_any_size_is_padded_and_not_refused():
    restore = NetworkRestorer(Generator(ngf=2).eval(), lowest=-1)
    images = torch.rand(1, 3, 40, 300)
    restored = restore(images)
    assert restored.shape == images.shape and 0 <= restored.min() and restored.max() <= 1
