"""The repository's sample photographs: what `make sample` shows, and that their truth is their truth."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from bd_diff.commands import sample as command
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.evaluation.metrics import psnr


def test_there_are_real_photographs_and_three_with_their_truth():
    blurry = [path.name for path in list_images(command.SAMPLES / "blurry")]
    sharp = [path.name for path in list_images(command.SAMPLES / "sharp")]
    assert len(sharp) == 3 and set(sharp) <= set(blurry)
    assert sum(name.startswith("kwentar_") for name in blurry) == 2


@pytest.mark.parametrize("path", list_images(command.SAMPLES / "sharp"), ids=lambda path: path.stem)
def test_the_truth_is_the_same_picture_and_sharper(path):
    sharp, blurry = (to_tensor(read_image(command.SAMPLES / kind / path.name))[None] for kind in ("sharp", "blurry"))
    assert 14 < psnr(blurry, sharp).item() < 42
    gradients = [torch.diff(images, dim=-1).square().mean() for images in (sharp, blurry)]
    assert gradients[0] > 1.2 * gradients[1]


def test_sample_writes_every_result_and_one_sheet_and_prints_the_figures(
    tiny_pipeline_folder, tmp_path, capsys, monkeypatch
):
    small = tmp_path / "samples"  # one photograph with its truth, one without
    for kind in ("blurry", "sharp"):
        (small / kind).mkdir(parents=True)
        for name in ("a.png", "b.png")[: 2 if kind == "blurry" else 1]:
            noise = np.random.default_rng(len(kind)).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(small / kind / name)
    monkeypatch.setattr(command, "SAMPLES", small)
    command.sample(out=tmp_path / "out", model=str(tiny_pipeline_folder))
    printed = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "sample.png"}
    assert str(tmp_path / "out") in printed and re.search(r"\d seconds per image", printed)
    paths = tmp_path / "out" / "a.png", small / "sharp" / "a.png"
    result, truth = (to_tensor(read_image(path))[None] for path in paths)
    assert f"{psnr(result, truth).item():.2f} dB" in printed
    assert len(re.findall("dB", printed)) == 2  # before and after, for the one whose truth is known


def test_sample_takes_photographs_of_ones_own_and_names_a_folder_that_is_missing(tiny_pipeline_folder, tmp_path):
    for name in ("a.png", "b.png"):
        Image.effect_noise((40, 24), 50).convert("RGB").save(tmp_path / name)
    (tmp_path / "names.txt").write_text("b.png")
    given = {"model": str(tiny_pipeline_folder), "photographs": tmp_path}
    command.sample(out=tmp_path / "one", names=tmp_path / "names.txt", **given)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"b.png", "sample.png"}
    command.sample(out=tmp_path / "both", **given)
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"a.png", "b.png", "sample.png"}
    with pytest.raises(ValueError, match="nowhere is missing$"):
        command.sample(out=tmp_path / "none", photographs=tmp_path / "nowhere")
