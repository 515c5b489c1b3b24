"""Probes tell tokens that carry blur from tokens that carry content, and both from noise."""

import json
from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.kernels import line
from bd_diff.blur.operator import data_consistency
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation import decoupling
from bd_diff.evaluation.linear_probe import accuracy, r_squared
from bd_diff.reading.kernel_search import gradients_inside


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photographs():
    return [procedural_image(96, generator(seed), "leaves") for seed in range(6)]


def test_a_linear_probe_finds_what_is_there_and_nothing_else():
    inputs, new = torch.randn(90, 40, generator=generator(1)), torch.randn(50, 40, generator=generator(2))
    weights = torch.randn(40, 2, generator=generator(3))
    assert r_squared(inputs, inputs @ weights, new, (new @ weights).double()) > 0.9
    nothing = torch.randn(140, 2, generator=generator(4)).double()
    assert r_squared(inputs, nothing[:90], new, nothing[90:]) < 0.2
    assert accuracy(inputs, (inputs[:, 0] > 0).long(), new, (new[:, 0] > 0).long()) > 0.75


class Reader:
    """Stands for a pipeline whose blur tokens are what `read(pixels)` says."""

    device = "cpu"

    def __init__(self, read):
        self.read = read

    def encode_image(self, pixels, fast):
        return SimpleNamespace(tokens=self.read(pixels)[None])


def test_tokens_of_blur_and_tokens_of_content_are_told_apart(photographs):
    def sharpness(pixels):
        light = pixels.mean(1, keepdim=True)
        return torch.stack([gradients_inside(light).abs().mean(), gradients_inside(light).square().mean()]).log()[None]

    content = decoupling.token_probes(Reader(lambda pixels: pixels.mean((2, 3))), photographs, 90)
    assert content["photograph accuracy"] > 0.6 and content["size R2"] < 0.3
    blur = decoupling.token_probes(Reader(sharpness), photographs[:1] * 6, 90)
    assert blur["size R2"] > 0.4


def test_every_probe_runs_on_a_real_pipeline(tiny_pipeline_folder, photographs, tmp_path, capsys):
    from bd_diff.commands.probe import probe

    for index, image in enumerate(photographs[:3]):
        save_image(to_image(image), tmp_path / f"sharp/{index}.png")
    probe(tmp_path / "sharp", model=str(tiny_pipeline_folder), fast=True, samples=30, out=tmp_path / "out")
    figures = json.loads((tmp_path / "out/probe.json").read_text())
    assert (
        set(figures) == {"probes", "structure", "swap", "tokens", "map", "transfer"}
        and (tmp_path / "out/probe.png").exists()
    )
    assert "structure tokens" in capsys.readouterr().out
    swapped = figures["tokens"]["line"]
    assert set(swapped) == {"own", "blur of another", "shuffled blur", "structure of another", "no structure"}
    with pytest.raises(ValueError, match="needs 3 photographs"):
        decoupling.swap_inside_a_blur(None, photographs[:2])


def test_swaps_tell_tokens_that_matter_from_decoration(tiny_pipeline, photographs, monkeypatch):
    """A pipeline whose result is its kernel's alone: blur tokens matter, structure tokens do not."""
    reading = {}

    def encode_image(pixels, fast):
        kernel = line(torch.tensor([5.0 + 8 * len(reading)]), torch.tensor([0.0]))
        return reading.setdefault(len(reading), SimpleNamespace(tokens=torch.zeros(1, 49, 16), kernels=kernel))

    def restored(self, image, kernels, **settings):
        return SimpleNamespace(images=data_consistency(image, image, kernels, torch.tensor([1e-3])))

    monkeypatch.setattr(type(tiny_pipeline), "__call__", restored)
    monkeypatch.setattr(tiny_pipeline, "encode_image", encode_image)
    monkeypatch.setattr(decoupling, "PROBED", ("line",))
    row = decoupling.token_swaps(tiny_pipeline, photographs[:2])["line"]
    assert row["own"] == row["structure of another"] == row["no structure"]
    assert abs(row["own"] - row["blur of another"]) > 0.5
