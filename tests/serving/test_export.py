"""An exported system gives what PyTorch gives, in another runtime."""

import onnx
import onnxruntime
import pytest
import torch
from bd_diff_toys.networks import TOYS
from typer.testing import CliRunner

from bd_diff.cli import app
from bd_diff.restore import NETWORKS, load
from bd_diff.serving.export import power_of_two


def exported(model, out, *options):
    given = ["export", "--model", str(model), "--out", str(out), *map(str, options)]
    CliRunner().invoke(app, given, catch_exceptions=False)
    return onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("system", NETWORKS)
def test_a_network_gives_the_same_images_at_the_sizes_it_takes(system, tmp_path):
    torch.manual_seed(0)
    network = TOYS[system]()
    for parameter in network.parameters():  # untrained, some would give images back as they are
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(tmp_path / "model")
    session = exported(tmp_path / "model", tmp_path / "network.onnx", "--side", 64)
    restorer = load(tmp_path / "model", device="cpu")
    for shape in [(1, 3, 64, 64)] if system == "AdaRevD" else [(1, 3, 96, 64), (3, 3, 32, 160)]:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        (restored,) = session.run(None, {"images": images.numpy()})
        expected = restorer(images)
        assert (torch.from_numpy(restored) - expected).abs().max() < 1e-5
        assert (expected - images).abs().max() > 1e-3


def test_adarevd_works_at_the_next_power_of_two(tmp_path):
    torch.manual_seed(0)
    network = TOYS["AdaRevD"]()
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(tmp_path / "model")
    session = exported(tmp_path / "model", tmp_path / "network.onnx", "--side", 72)
    images = torch.rand(1, 3, 72, 72, generator=torch.Generator().manual_seed(0))
    (restored,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        padded = torch.nn.functional.pad(images, (0, 56, 0, 56), mode="reflect")
        expected = network.eval().every_depth(padded)[-1][..., :72, :72].clamp(0, 1)
    assert restored.shape == (1, 3, 72, 72) and (torch.from_numpy(restored) - expected).abs().max() < 1e-5
    spectra = [node for node in onnx.load(tmp_path / "network.onnx").graph.node if node.op_type == "DFT"]
    assert spectra and [power_of_two(side) for side in (1, 2, 33, 64, 65)] == [1, 2, 64, 64, 128]


def test_the_kernel_estimator_sees_the_same_kernel(tiny_pipeline, tiny_pipeline_folder, tmp_path):
    session = exported(tiny_pipeline_folder, tmp_path / "kernel.onnx", "--side", 96)
    for seed in range(2):
        images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(seed))
        (kernels,) = session.run(None, {"images": images.numpy()})
        expected = tiny_pipeline.estimate_kernel(images, fast=True)
        assert kernels.shape == (1, 33, 33) and kernels.sum() == pytest.approx(1, abs=1e-5)
        assert (torch.from_numpy(kernels) - expected).abs().max() < 1e-6


def test_a_file_that_is_there_is_kept_and_another_ending_refused(tmp_path):
    (tmp_path / "there.onnx").write_text("kept")
    with pytest.raises(ValueError, match="--overwrite"):
        CliRunner().invoke(app, ["export", "--out", str(tmp_path / "there.onnx")], catch_exceptions=False)
    with pytest.raises(ValueError, match="must end in .onnx"):
        CliRunner().invoke(app, ["export", "--out", str(tmp_path / "model.pt")], catch_exceptions=False)
