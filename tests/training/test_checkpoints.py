"""Checkpoints: whole or not there, two of them, nothing pickled; a training goes on from them as if never stopped."""

import io
import json
import pickle
import shutil
import sys

import pytest
import torch
from bd_diff_toys.damage import Flag, room_for
from torch import nn

from bd_diff.training.checkpoints import RECORD, damage, newest_checkpoint
from bd_diff.training.config import RunConfig, load_config
from bd_diff.training.loop import Turn, fit, start
from bd_diff.training.state_files import load_state, same_layout, save_state


class Fit(nn.Module):
    """A line through points that are drawn anew every step."""

    def __init__(self, factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.frozen, self.factor = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False), factor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch, generator):
        self.seen += 1
        noise = torch.randn(batch.shape, generator=generator)
        return {"loss": self.factor * (self.layer(batch + noise) - self.frozen(batch)).square().mean()}


class Counter:
    """Something else that a training keeps."""

    count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def train(folder, steps=6, until=None, counter=None, factor=1.0, scaler=None, **run):
    """Train to the end, or until a check at the step `until`; gives the network, and whether it finished."""
    run = RunConfig(
        str(folder), steps, 2, save_minutes=0, validate_every=1, trackers=(), warmup_steps=1, cpu=True, **run
    )
    network, counter = Fit(factor), counter or Counter()
    accelerator = start(run)
    if scaler:
        accelerator.scaler, accelerator.native_amp = scaler, True
        accelerator.state._mixed_precision = "fp16"  # which accelerate refuses on a CPU
    optimizer = torch.optim.AdamW(network.layer.parameters(), lr=0.1)
    reached = []

    def validate(step):
        counter.count += 1
        reached.append(step)
        return {}

    samples = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    stop = (lambda: bool(reached) and reached[-1] >= until) if until else None
    ended = fit(accelerator, [Turn(network, optimizer)], samples, run, lambda _: None, validate, stop=stop,
                others={"counter": counter})  # fmt: skip
    accelerator.state._mixed_precision = "no"
    return network, ended


def names(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def same(first, second):
    return all(torch.equal(first.state_dict()[name], tensor) for name, tensor in second.state_dict().items())


@pytest.fixture
def whole(tmp_path):
    return train(tmp_path / "whole")[0]


def test_the_last_two_are_kept_and_hold_nothing_pickled(whole, tmp_path):
    assert names(tmp_path / "whole") == ["checkpoint-5", "checkpoint-6"]
    files = sorted(path.name for path in (tmp_path / "whole/checkpoint-6").iterdir())
    assert files == [RECORD, "frozen.json", "model.safetensors", "optimizer.safetensors", "state.safetensors"]


def test_a_training_that_stopped_goes_on_as_if_it_had_not(whole, tmp_path):
    train(tmp_path / "parts", until=3)
    counter = Counter()
    network, ended = train(tmp_path / "parts", resume=True, counter=counter)
    assert ended and counter.count == 6 and same(network, whole)


@pytest.mark.parametrize(
    "file", [RECORD, "frozen.json", "model.safetensors", "optimizer.safetensors", "state.safetensors"]
)
@pytest.mark.parametrize("how", ["cut", "changed", "missing"])
def test_where_the_newest_is_damaged_the_one_before_is_taken_and_the_file_named(whole, tmp_path, capfd, file, how):
    train(tmp_path / "parts", until=4)
    path = tmp_path / "parts/checkpoint-4" / file
    content = path.read_bytes()
    damaged = {"cut": content[:-7], "changed": bytes([content[0] ^ 1]) + content[1:], "missing": None}[how]
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    (tmp_path / "parts/checkpoint-999").mkdir()
    assert newest_checkpoint(tmp_path / "parts").name == "checkpoint-3"
    network, _ = train(tmp_path / "parts", resume=True)
    assert same(network, whole)
    if not (file == RECORD and how == "missing"):  # without its record it is none
        told = capfd.readouterr().err
        assert f"checkpoint-4/{file} is " in told and "looking for the checkpoint before it" in told
    assert names(tmp_path / "parts") == ["checkpoint-5", "checkpoint-6"]


def test_where_all_are_damaged_this_is_told(whole, tmp_path):
    for name in names(tmp_path / "whole"):
        (tmp_path / "whole" / name / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        ValueError, match="no checkpoint in .*whole is whole: .*checkpoint-6/model.safetensors is damaged"
    ):
        train(tmp_path / "whole", steps=8, resume=True)
    with pytest.raises(ValueError, match="already holds a training; pass --resume"):
        train(tmp_path / "whole")


def test_a_folder_with_an_empty_checkpoint_can_be_begun_in(tmp_path):
    (tmp_path / "run/checkpoint-999").mkdir(parents=True)
    (tmp_path / "run/checkpoint-notes.txt").touch()
    assert train(tmp_path / "run", resume=True)[1] and names(tmp_path / "run")[-2:] == [
        "checkpoint-6",
        "checkpoint-notes.txt",
    ]


def test_no_pickle_in_a_checkpoint_is_run(whole, tmp_path):
    for name in ("custom_checkpoint_0.pkl", "random_states_0.pkl", "optimizer.bin", "model.bin", "scaler.pt"):
        with open(tmp_path / "whole/checkpoint-6" / name, "wb") as file:
            pickle.dump(Flag(tmp_path / "ran"), file)
    train(tmp_path / "whole", steps=8, resume=True)
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(tmp_path / "whole/checkpoint-7")
    (tmp_path / "old/checkpoint-3").mkdir(parents=True)
    with open(tmp_path / "old/checkpoint-3/random_states_0.pkl", "wb") as file:
        pickle.dump(Flag(tmp_path / "ran"), file)
    with pytest.raises(ValueError, match="checkpoint-3 is of an earlier version, which wrote pickles"):
        train(tmp_path / "old", resume=True)
    with pytest.raises(ValueError, match="old already holds a training"):
        train(tmp_path / "old")
    assert not (tmp_path / "ran").exists()


def test_on_a_full_disk_the_older_checkpoint_stays_and_the_training_goes_on_from_it(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # which would be a file on the full disk, too
    train(tmp_path / "parts", until=2)
    largest = max(path.stat().st_size for path in (tmp_path / "parts/checkpoint-2").iterdir())
    for room in range(0, largest, 97):
        with room_for(room), pytest.raises(OSError, match="cannot write .*checkpoint-3: File too large"):
            train(tmp_path / "parts", resume=True)
        assert names(tmp_path / "parts") == ["checkpoint-1", "checkpoint-2"]
        assert damage(tmp_path / "parts/checkpoint-2") is None
    assert same(train(tmp_path / "parts", resume=True)[0], whole)


def test_a_training_that_ended_early_does_not_go_on_when_it_is_resumed(tmp_path):
    run = tmp_path / "run"
    train(run, until=3)
    kept = {"always": True}
    network = Fit()
    settings = RunConfig(str(run), 6, 2, save_minutes=0, trackers=(), cpu=True, resume=True)
    optimizer = torch.optim.AdamW(network.layer.parameters(), lr=0.1)
    saved = []
    ended = fit(start(settings), [Turn(network, optimizer)], torch.zeros(64, 4), settings, saved.append,
                stop=lambda: kept["always"], others={"counter": Counter()})  # fmt: skip
    assert ended and saved == [run] and names(run) == ["checkpoint-2", "checkpoint-3"]


def test_another_configuration_and_another_frozen_weight_are_told(whole, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="state.safetensors holds average 0, counter, but this training has counter"):
        train(tmp_path / "whole", steps=8, resume=True, ema_decay=0.0)
    init = Fit.__init__

    def other(self, factor):
        init(self, factor)
        self.frozen.bias += 1

    monkeypatch.setattr(Fit, "__init__", other)
    with pytest.raises(ValueError, match="model.safetensors was trained over other frozen weights"):
        train(tmp_path / "whole", steps=8, resume=True)


def test_with_half_precision_a_first_overflow_lowers_the_scale_and_training_goes_on(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    network, ended = train(tmp_path / "half", steps=14, scaler=scaler)
    assert ended and scaler.get_scale() < 2.0**24
    assert not torch.equal(network.layer.weight, Fit().layer.weight) and network.layer.weight.isfinite().all()
    state = load_state(tmp_path / "half/checkpoint-14/state.safetensors")
    assert state["scaler"]["scale"] == scaler.get_scale()


def test_the_launchers_precision_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="the launcher asks for mixed precision bf16, but run.mixed_precision is no"):
        start(RunConfig(str(tmp_path), 1, 1, cpu=True))


def test_no_is_a_precision_although_yaml_reads_it_as_false(tmp_path):
    (tmp_path / "a.yaml").write_text("folder: a\nsteps: 1\nbatch_size: 1\nmixed_precision: no\n")
    assert load_config(RunConfig, ["--config", str(tmp_path / "a.yaml")]).mixed_precision == "no"


def test_nested_state_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    state = {
        0: {"step": torch.tensor(3.0), "exp_avg": shared.bfloat16()},
        "betas": (0.9, 0.99),
        "none": None,
        "list": [True, float("inf"), "text", {}],
        "same": [shared[:3], shared[3:]],
    }
    save_state(state, tmp_path / "a.safetensors")
    found = load_state(tmp_path / "a.safetensors")
    assert same_layout(state, found) and found["betas"] == (0.9, 0.99) and found["list"] == state["list"]
    assert found[0]["exp_avg"].dtype == torch.bfloat16 and torch.equal(found["same"][1], shared[3:])
    with pytest.raises(TypeError, match="state of type Counter cannot be saved"):
        save_state({"a": Counter()}, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="c.safetensors is missing or damaged"):
        load_state(tmp_path / "c.safetensors")


def test_the_record_has_the_hash_of_every_other_file(whole, tmp_path):
    folder = tmp_path / "whole/checkpoint-6"
    assert set(json.loads((folder / RECORD).read_text())) == {path.name for path in folder.iterdir()} - {RECORD}
