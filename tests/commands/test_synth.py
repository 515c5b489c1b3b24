"""Folders of a blur domain, from the command line."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from bd_diff.blur.camera import Camera
from bd_diff.blur.synthesis import Blur
from bd_diff.commands.data import data
from bd_diff.commands.synth import synth
from bd_diff.data.folders import Folder
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.data.synthetic import again, write_domain

app = typer.Typer()
app.command()(synth)


@pytest.fixture
def photographs(tmp_path):
    for number in range(3):
        image = procedural_image(64, torch.Generator().manual_seed(number), "leaves")
        save_image(to_image(image), tmp_path / "photographs" / f"{number}.png")
    return tmp_path / "photographs"


def test_synth_writes_pairs_that_data_check_finds_in_order(photographs, tmp_path):
    result = CliRunner().invoke(app, [str(photographs), "--out", str(tmp_path / "out"), "--domain", "night-shake"])
    assert result.exit_code == 0 and "3 photographs of the domain night-shake" in result.output
    folder = Folder(tmp_path / "out")
    assert folder.layout == "paired" and len(folder) == 3
    checked = CliRunner().invoke(data, ["check", str(tmp_path / "out")])
    assert checked.exit_code == 0 and "problems  none" in checked.output


def test_each_image_can_be_made_again_from_the_manifest(photographs, tmp_path):
    write_domain(sorted(photographs.iterdir()), tmp_path / "out", "rolling-shake", seed=5)
    for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines():
        stored = json.loads(line)
        sharp = to_tensor(read_image(photographs / stored["source"]))
        image = again(sharp, Blur(**stored["blur"]), Camera(**stored["camera"]), stored["seed"])
        assert torch.allclose(image, to_tensor(read_image(tmp_path / "out" / stored["file"])), atol=0.51 / 255)


def test_an_unpaired_folder_has_no_photograph_on_both_sides(photographs, tmp_path):
    written, _ = write_domain(sorted(photographs.iterdir()), tmp_path / "out", "defocus", paired=False)
    sides = [{path.name for path in (tmp_path / "out" / side).iterdir()} for side in ("unpaired", "sharp")]
    assert written == 3 and sides == [{"0.png", "2.png"}, {"1.png"}]
    assert Folder(tmp_path / "out").kind == "unpaired"


def test_the_seed_decides(photographs, tmp_path):
    paths = sorted(photographs.iterdir())
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_domain(paths, tmp_path / name, "source", seed=seed)
    a, b, c = ((tmp_path / name / "manifest.jsonl").read_text() for name in "abc")
    assert a == b != c


def test_an_unreadable_photograph_stops_or_is_named_and_skipped(photographs, tmp_path):
    (photographs / "1.png").write_text("nothing")
    with pytest.raises(ValueError, match="1.png"):
        write_domain(sorted(photographs.iterdir()), tmp_path / "a", "source")
    arguments = [str(photographs), "--out", str(tmp_path / "b"), "--skip-bad"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "skipped: " in result.output and "2 photographs" in result.output
    assert sorted(path.name for path in (tmp_path / "b/sharp").iterdir()) == ["0.png", "2.png"]


def test_bad_arguments_are_one_sentence(photographs, tmp_path):
    with pytest.raises(ValueError, match="no blur domain 'fog'"):
        synth(photographs, tmp_path / "out", domain="fog")
    with pytest.raises(ValueError, match="already holds something"):
        synth(photographs, photographs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        synth(tmp_path / "empty", tmp_path / "out")


def test_two_photographs_of_one_name_are_refused(photographs, tmp_path):
    save_image(to_image(torch.zeros(3, 64, 64)), photographs / "1.jpg")
    with pytest.raises(ValueError, match="two photographs are called 1"):
        write_domain(sorted(photographs.iterdir()), tmp_path / "out", "source")


def test_only_the_photographs_that_a_list_names_are_taken(photographs, tmp_path):
    (tmp_path / "some.txt").write_text("2.png\n0.png\n")
    arguments = [str(photographs), "--out", str(tmp_path / "out"), "--names", str(tmp_path / "some.txt")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out/sharp").iterdir()) == ["0.png", "2.png"]
