import json

import pytest
import torch
from bd_diff_toys.adarevd import noise, toy
from bd_diff_toys.released_layouts import adarevd_state, classifier_state, nafnet_state

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.commands.convert import convert
from bd_diff.commands.exits import exits
from bd_diff.data.images import save_image, to_image
from bd_diff.restore import load

RELEASED = {"enc": (1, 1), "middle": 1, "layers": (1, 1), "blocks": ("fourier", "fourier")}


def saved(path, state):
    torch.save({"params": state}, path)
    return path


def test_a_released_nafnet_becomes_a_model_folder(tmp_path, capsys):
    convert(saved(tmp_path / "net.pth", nafnet_state(4, (1, 1), 1, (1, 1))), tmp_path / "model")
    assert NAFNet.from_pretrained(tmp_path / "model").config.width == 4
    assert capsys.readouterr().out.startswith("NAFNet with 5,759 parameters, in ")
    with pytest.raises(ValueError, match="is already there"):
        convert(tmp_path / "net.pth", tmp_path / "model")


def test_a_released_adarevd_and_its_classifier_become_one_model_folder(tmp_path):
    state = adarevd_state(8, **RELEASED)
    torch.save(classifier_state(32, 6, "e3"), tmp_path / "GoPro.pth")
    convert(saved(tmp_path / "net.pth", state), tmp_path / "model", tmp_path / "GoPro.pth", "2,2,2,1,1,0")
    assert AdaRevD.from_pretrained(tmp_path / "model").config.exit_table == [2, 2, 2, 1, 1, 0]


def test_files_that_cannot_be_converted_are_named(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"net.pth is not a checkpoint of plain tensors"):
        convert(path, tmp_path / "model")
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="net.pth holds a list"):
        convert(path, tmp_path / "model")
    torch.save({"params": {"epoch": 3}}, path)
    with pytest.raises(ValueError, match="more than tensors"):
        convert(path, tmp_path / "model")
    with pytest.raises(ValueError, match="give whole numbers with commas"):
        convert(path, tmp_path / "model", exit_table="4;3")
    with pytest.raises(ValueError, match="is no AdaRevD"):
        convert(saved(path, nafnet_state(4, (1, 1), 1, (1, 1))), tmp_path / "model", exit_table="4,3")
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_report_of_a_photograph_counts_its_tiles(tmp_path, capsys):
    network = toy(2, classifier_features="e3", thresholds=(20.0, 30.0), exit_table=[1, 1, 1])
    network.save_pretrained(tmp_path / "model")
    save_image(to_image(noise(3, 50, 70)), tmp_path / "photo.png")
    exits(tmp_path / "model", [tmp_path / "photo.png"])
    assert "photo.png: 6 tiles, 1.00 of 2 sub-decoders; 6 after 1" in capsys.readouterr().out


def test_only_adarevd_reports_exits(tmp_path):
    NAFNet(4, (1, 1), 1, (1, 1)).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a NAFNet; only AdaRevD has early exits"):
        exits(tmp_path / "model", [])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("width", 8, r"shape"),
        ("variant", 3, r"lacks the tensor decoders\.2\."),
        ("variant", 1, r"holds the tensor (decoders|heads)\.1\..*does not have"),
        ("thresholds", [20.0], r"classifier\.(alpha|to_classes)"),
    ],
)
def test_a_model_folder_of_another_width_depth_or_class_count_says_what_differs(key, value, message, tmp_path):
    toy(2, classifier_features="e3", thresholds=(20.0, 30.0)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
