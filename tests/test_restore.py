"""Every system loads by one call and works on every size; a damaged model folder is named, never half loaded."""

import copy
import json

import numpy as np
import pytest
import torch
from bd_diff_toys.networks import TOYS
from PIL import Image
from safetensors.torch import load_file, save_file

from bd_diff import BDDiffPipeline
from bd_diff.baselines.uresnet import UResNet
from bd_diff.baselines.xdecode import Generator
from bd_diff.data.images import save_image, to_image
from bd_diff.restore import NETWORKS, PipelineRestorer, load

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved toy of each baseline."""
    root = tmp_path_factory.mktemp("models")
    for name, build in TOYS.items():
        torch.manual_seed(0)
        build().save_pretrained(root / name)
    return root


@pytest.fixture
def broken(folders, tmp_path):
    """A copy of the U-ResNet's folder, to be damaged."""
    folder = tmp_path / "model"
    TOYS["UResNet"]().save_pretrained(folder)
    return folder


@pytest.fixture
def broken_pipeline(tiny_pipeline_folder, tmp_path):
    """A copy of the pipeline's folder, to be damaged."""
    for path in tiny_pipeline_folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / "model" / path.relative_to(tiny_pipeline_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "model"


def images(height, width, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def test_every_network_that_loads_has_a_toy():
    assert TOYS.keys() == NETWORKS.keys()


@pytest.mark.parametrize("system", ["UResNet", "pipeline"])
def test_every_kind_of_photograph_comes_back_as_its_kind(folders, tiny_pipeline_folder, tmp_path, system):
    restorer = load(folders / system if system in TOYS else tiny_pipeline_folder, device="cpu")
    batch = images(24, 32, batch=2)
    batch = (batch * 255).round() / 255

    def restore(photographs):
        settings = {} if system in TOYS else {"generator": torch.Generator().manual_seed(0)}
        return restorer(photographs, **settings)

    expected = restore(batch[:1])
    save_image(to_image(batch[0]), tmp_path / "a.png")
    assert torch.equal(restore(batch[0]), expected[0])
    assert np.array_equal(restore(batch[0].permute(1, 2, 0).numpy()), expected[0].permute(1, 2, 0).numpy())
    assert restore(batch.permute(0, 2, 3, 1).numpy()).shape == (2, 24, 32, 3)
    for photograph in (tmp_path / "a.png", str(tmp_path / "a.png"), to_image(batch[0])):
        assert restore(photograph).tobytes() == to_image(expected[0]).tobytes()
    kinds = restore([tmp_path / "a.png", batch[0], images(9, 11)[0]])
    assert [type(kind) for kind in kinds] == [Image.Image, torch.Tensor, torch.Tensor]
    assert kinds[2].shape == (3, 9, 11)
    with pytest.raises(ValueError, match="gone.png does not exist"):
        restore("gone.png")


@pytest.mark.parametrize("system", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 50), (3, 90)])
def test_any_size_comes_back_at_its_size_and_in_range(folders, system, size):
    restored = load(folders / system, device="cpu")(images(*size, batch=2))
    assert restored.shape == (2, 3, *size)
    assert restored.dtype == torch.float32
    assert 0 <= restored.min() and restored.max() <= 1


@pytest.mark.parametrize("size", [(8, 8), (33, 50)])
def test_the_pipeline_gives_any_size_back_too(tiny_pipeline_folder, size):
    restored = load(tiny_pipeline_folder, device="cpu")(images(*size), num_inference_steps=1)
    assert restored.shape == (1, 3, *size)
    assert 0 <= restored.min() and restored.max() <= 1


@pytest.mark.parametrize("system", NETWORKS)
def test_a_batch_gives_what_its_images_give(folders, system):
    restorer, batch = load(folders / system, device="cpu"), images(16, 24, batch=3)
    singles = torch.cat([restorer(image[None]) for image in batch])
    assert torch.allclose(restorer(batch), singles, atol=1e-5)


def test_the_pixels_of_x_decode_are_shifted_to_its_range_and_back(folders):
    network = Generator.from_pretrained(folders / "Generator").eval()
    blurry = images(32, 32)
    with torch.no_grad():
        expected = (network(2 * blurry - 1) + 1) / 2
    assert torch.allclose(load(folders / "Generator", device="cpu")(blurry), expected, atol=1e-6)


def test_a_network_has_no_settings(folders):
    with pytest.raises(ValueError, match="UResNet has no setting num_inference_steps"):
        load(folders / "UResNet", device="cpu")(images(8, 8), num_inference_steps=3)


@pytest.mark.parametrize(
    "wrong, what",
    [
        (torch.rand(1, 1, 8, 8), r"\(1, 1, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.rand(1, 3, 8, 8) * 255, r"\[0, 1\]"),
        (torch.rand(1, 3, 8, 8) - 1, r"\[0, 1\]"),
        (torch.full((1, 3, 8, 8), torch.nan), "nan"),
        ("photo.png", "photo.png does not exist"),
    ],
)
def test_a_tensor_of_wrong_range_or_shape_is_refused(folders, wrong, what):
    with pytest.raises(ValueError, match=what):
        load(folders / "UResNet", device="cpu")(wrong)


# Damaged folders


def refused(folder, *words):
    with pytest.raises(ValueError) as caught:
        load(folder, device="cpu")
    for word in (str(folder), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    refused(tmp_path / "nowhere", "not a model folder")


def test_an_id_of_the_hub_is_fetched_and_a_failure_told_in_one_sentence(folders, monkeypatch):
    def snapshot(name, **_):
        if name != "someone/uresnet":
            raise ConnectionError("no such model\nlook elsewhere")
        return str(folders / "UResNet")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert load("someone/uresnet", device="cpu").name == "UResNet"
    refused("someone/nothing", "neither a folder nor a model the hub gives: no such model")


def test_a_folder_without_a_model_is_named(tmp_path):
    refused(tmp_path, "model_index.json")


def test_a_folder_of_an_unknown_class_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "ResNet50"}')
    refused(tmp_path, "ResNet50", "UResNet")


def test_missing_weights_are_named(broken):
    (broken / WEIGHTS).unlink()
    refused(broken, "safetensors")


def test_truncated_weights_are_named(broken):
    path = broken / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    refused(broken, WEIGHTS, "damaged")


def test_a_damaged_configuration_is_named(broken):
    (broken / "config.json").write_text('{"_class_name": ')
    refused(broken, "config.json", "damaged")


def test_a_missing_tensor_is_named(broken):
    tensors = load_file(broken / WEIGHTS)
    del tensors["conv2d.weight"]
    save_file(tensors, broken / WEIGHTS, metadata={"format": "pt"})
    refused(broken, "conv2d.weight")


def test_nan_in_the_weights_is_named(broken):
    tensors = load_file(broken / WEIGHTS)
    tensors["conv2d_9.bias"][1] = torch.nan
    save_file(tensors, broken / WEIGHTS, metadata={"format": "pt"})
    refused(broken, WEIGHTS, "conv2d_9.bias", "NaN")


def test_weights_of_another_size_than_the_configuration_are_named(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "width": 4}))
    refused(broken, "conv2d")


def test_a_pipeline_without_one_of_its_components_names_it(broken_pipeline):
    config = next(path for path in broken_pipeline.glob("*/config.json"))
    config.unlink()
    refused(broken_pipeline, str(config), "missing")


def test_a_pipeline_with_truncated_weights_names_them(broken_pipeline):
    weights = max(broken_pipeline.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(broken_pipeline, str(weights), "damaged")


def test_a_pipeline_with_nan_in_its_weights_names_file_and_tensor(broken_pipeline):
    weights = max(broken_pipeline.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name].flatten()[0] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    refused(broken_pipeline, str(weights), name, "NaN")


def test_a_result_that_is_not_finite_is_no_result(tiny_pipeline, folders):
    for restorer in (PipelineRestorer(copy.deepcopy(tiny_pipeline)), load(folders / "UResNet", "cpu")):
        network = restorer.pipeline.unet if isinstance(restorer, PipelineRestorer) else restorer.network
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(1e30)
        with pytest.raises(ValueError, match=f"{restorer.name} made NaN or infinite values of it"):
            restorer(torch.rand(1, 3, 32, 32))


def test_the_models_own_tile_is_checked_too(tiny_pipeline):
    pipeline = copy.deepcopy(tiny_pipeline)
    pipeline.register_to_config(tile=7)
    with pytest.raises(ValueError, match="tile is 7; it must be 0 or a multiple of"):
        PipelineRestorer(pipeline).check_settings()


def test_smaller_tiles_are_tried_where_memory_runs_out(tiny_pipeline, monkeypatch):
    """A UNet that cannot take more than 320 pixels a side stands for a full GPU."""
    forward, images = tiny_pipeline.unet.forward, torch.rand(1, 3, 400, 400, generator=torch.Generator().manual_seed(0))

    def small_memory(sample, *arguments, **settings):
        if sample.shape[-1] > 160:
            raise torch.OutOfMemoryError("out of memory")
        return forward(sample, *arguments, **settings)

    restorer = PipelineRestorer(tiny_pipeline)
    wanted = restorer(images, tile=200, fast=True, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(tiny_pipeline.unet, "forward", small_memory)
    with pytest.warns(UserWarning, match="trying again with tiles of 200 pixels"):
        restored = restorer(images, fast=True, generator=torch.Generator().manual_seed(1))
    assert torch.equal(restored, wanted)
    monkeypatch.setattr(tiny_pipeline.unet, "forward", lambda *_, **__: small_memory(torch.zeros(1, 1, 1, 999)))
    with pytest.raises(torch.OutOfMemoryError, match="even with tiles of 192 pixels"), pytest.warns(UserWarning):
        restorer(images, fast=True)


def test_the_model_that_ships_is_the_default_and_has_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no assets are
    assert isinstance(load(device="cpu"), PipelineRestorer)
    assert isinstance(load("bd-diff-tiny", device="cpu"), PipelineRestorer)
    assert BDDiffPipeline.from_pretrained().config.default_steps >= 1


@pytest.fixture(scope="module")
def network_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    UResNet(width=2).save_pretrained(folder)
    return folder


def test_uint8_and_grey_arrays_come_back_as_they_were_given(network_folder):
    restore = load(network_folder, device="cpu")
    levels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    expected = restore(levels.astype(np.float32) / 255)
    assert np.array_equal(restore(levels), (expected * 255).round().astype(np.uint8))
    assert np.array_equal(restore(levels[None])[0], restore(levels))
    grey = restore(levels[..., 0])
    assert grey.shape == (24, 32) and grey.dtype == np.uint8
    assert restore(levels[..., 0] / 255).dtype == np.float32


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((8, 8, 3), np.int64), "an array of int64 is no image; give uint8, or floating point"),
        (np.zeros((3, 8, 8), np.uint8), r"an array of shape \(3, 8, 8\) is no image; give \(H, W, 3\)"),
        ({"image": 1}, "image is a dict; expected a path, a PIL image"),
        (None, "image is a NoneType; expected a path"),
        (7, "image is a int; expected a path"),
    ],
)
def test_what_is_no_image_is_told_in_a_sentence(network_folder, given, told):
    with pytest.raises(ValueError, match=told):
        load(network_folder, device="cpu")(given)


def test_a_system_shows_what_it_is(network_folder):
    assert repr(load(network_folder, device="cpu")) == "<UResNet, 0.02 million parameters, float32 on cpu>"
    assert repr(load(device="cpu")).startswith("<BD-Diff, ")
