"""Runs into one folder at the same time: photographs by name go together, folders one after the other."""

import subprocess

import numpy as np
import pytest
from PIL import Image

from bd_diff.baselines.uresnet import UResNet
from bd_diff.data.claims import LOCK, take
from bd_diff.serving.folder_run import MANIFEST, Manifest


@pytest.fixture
def started(warm_python, tmp_path):
    """Starts `bd-diff deblur` of some inputs into one folder."""
    UResNet(width=2).save_pretrained(tmp_path / "model")
    (tmp_path / "in").mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "in" / f"{index}.png")

    def start(*inputs):
        code = "from bd_diff.data import claims; claims.PATIENCE = 0.2; from bd_diff.cli import main; main()"
        given = [*map(str, inputs), "--out", str(tmp_path / "out"), "--model", str(tmp_path / "model")]
        return subprocess.Popen([*warm_python, "-c", code, "deblur", *given], stderr=subprocess.PIPE, text=True)

    return start


def test_photographs_by_name_do_not_refuse_each_other_nor_wait_for_a_folder(started, tmp_path):
    let_go = take(tmp_path / "out")  # as of a folder run that goes on
    running = [started(tmp_path / "in" / f"{first}.png", tmp_path / "in" / f"{first + 1}.png") for first in (0, 2)]
    assert [one.wait(120) for one in running] == [0, 0]
    let_go()
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {MANIFEST, *(f"{index}.png" for index in range(4))}
    assert set(Manifest(tmp_path / "out").read().values()) == {None} and len(Manifest(tmp_path / "out").read()) == 4


def test_a_folder_in_the_place_of_a_result_is_told(started, tmp_path):
    (tmp_path / "out" / "2.png").mkdir(parents=True)
    for _ in range(2):  # it is the machine's failure, so it is told again
        running = started(tmp_path / "in", "--resume")
        assert f"cannot write {tmp_path / 'out/2.png'}: Is a directory" in running.communicate(timeout=120)[1]
        assert running.returncode == 1
    (tmp_path / "out" / "2.png").rmdir()
    assert started(tmp_path / "in", "--resume").wait(120) == 0 and (tmp_path / "out" / "2.png").is_file()


def test_a_folder_waits_for_another_one_and_leaves_no_lock(started, tmp_path):
    let_go = take(tmp_path / "out")
    refused = started(tmp_path / "in")
    assert f"another run is writing to {tmp_path / 'out'}" in refused.communicate(timeout=120)[1]
    assert refused.returncode == 1
    let_go()
    assert not (tmp_path / "out").exists()
    assert started(tmp_path / "in").wait(120) == 0
    assert (tmp_path / "out" / "3.png").exists() and not (tmp_path / "out" / LOCK).exists()
