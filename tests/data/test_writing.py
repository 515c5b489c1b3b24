"""What is written is whole or not there, at whatever byte the disk is full."""

import errno
import os

import numpy as np
import pytest
import torch
from bd_diff_toys.damage import room_for
from PIL import Image
from safetensors.torch import save_file

from bd_diff.data.deep import DeepImage
from bd_diff.data.images import save_image
from bd_diff.data.writing import replacing, replacing_folder

SIZE = (60, 40)


def photograph(deep):
    levels = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3), dtype=np.uint16)
    return DeepImage(levels) if deep else Image.fromarray((levels >> 8).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.ppm", "a.webp", "deep.png", "deep.tif"])
def test_a_photograph_is_whole_or_not_there_wherever_the_disk_is_full(tmp_path, name):
    image = photograph(name.startswith("deep"))
    save_image(image, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    for room in range(0, len(whole), 512):
        with room_for(room), pytest.raises(OSError, match=f"^cannot write .*{name}: File too large$") as raised:
            save_image(image, tmp_path / name)
        assert raised.value.errno == errno.EFBIG and not list(tmp_path.iterdir())
    save_image(image, tmp_path / name)
    assert (tmp_path / name).read_bytes() == whole


def test_what_was_there_stays_where_its_successor_cannot_be_written(tmp_path):
    with replacing(tmp_path / "report.json") as part:
        part.write_text("before")
    with room_for(2), pytest.raises(OSError, match="cannot write .*report.json"):
        with replacing(tmp_path / "report.json") as part:
            part.write_text("after that")
    with replacing_folder(tmp_path / "model") as folder:
        save_file({"a": torch.ones(4)}, folder / "a.safetensors")
    with room_for(2), pytest.raises(OSError, match="cannot write .*model: File too large"):
        with replacing_folder(tmp_path / "model") as folder:
            save_file({"a": torch.zeros(4)}, folder / "a.safetensors")
    assert (tmp_path / "report.json").read_text() == "before"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.safetensors", "model", "report.json"]


def test_content_is_flushed_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("rename"), rename(old, new)))
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("a")
    assert done == [str(part), "rename", str(tmp_path)]


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    name = "é" * 125 + "a.png"
    save_image(photograph(False), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and len(os.fsencode(name)) == 255
