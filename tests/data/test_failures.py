"""Failures of the machine are told from those of the photograph; no photograph may be larger than memory."""

import errno
import os

import pytest
import torch

from bd_diff.data.failures import in_one_line, of_the_machine, out_of_memory
from bd_diff.serving import memory
from bd_diff.serving.memory import FEWEST, MOST, most_pixels


def raised_from(cause):
    try:
        try:
            raise cause
        except Exception as error:
            raise ValueError("a.png cannot be read") from error
    except ValueError as error:
        return error


def test_memory_that_is_short_on_the_cpu_is_known_by_what_torch_says():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(raised.value) and out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError())
    assert not out_of_memory(RuntimeError("sizes do not fit"))


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (raised_from(MemoryError()), True),
        (raised_from(OSError(errno.EIO, "Input/output error")), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (OSError("image file is truncated (3 bytes not processed)"), False),
        (OSError(errno.EINVAL, os.strerror(errno.EINVAL)), False),  # a damaged file's wrong offset
        (raised_from(KeyError(277)), False),
        (ValueError("too small"), False),
    ],
)
def test_what_may_be_over_the_next_time_is_told_from_what_will_not(error, machine):
    assert of_the_machine(error) == machine


def test_every_error_says_something():
    assert in_one_line(KeyError(277)) == "KeyError: 277" and in_one_line(MemoryError()) == "MemoryError"
    assert in_one_line(ValueError("a\n b")) == "a b"


def test_the_limit_of_pixels_follows_the_memory_that_is_there(monkeypatch):
    free = {}
    monkeypatch.setattr(memory, "available_memory", lambda: free["bytes"])
    limits = []
    for free["bytes"] in (2**28, 2**32, 2**34, 2**40):
        limits.append(most_pixels(4))
    assert limits == sorted(limits) and limits[0] == FEWEST and limits[-1] == MOST
    assert limits[1] < 16_000_000 < limits[2]
    assert most_pixels(4) >= most_pixels(64)


def test_the_memory_of_a_container_counts(monkeypatch, tmp_path):
    for name, value in (("max", str(3 * 2**20)), ("current", str(2**20))):
        (tmp_path / name).write_text(value + "\n")
    monkeypatch.setattr(memory, "CGROUPS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert memory.available_memory() == 2 * 2**20
    (tmp_path / "max").write_text("max\n")
    assert memory.available_memory() > 2**25
