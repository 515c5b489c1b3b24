"""A folder belongs to one run at a time."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from bd_diff.data import claims
from bd_diff.data.claims import LOCK, claim, take

HOLD = "import sys, pathlib; from bd_diff.data.claims import claim; claim(pathlib.Path(sys.argv[1])); print(1); input()"


def test_a_second_run_is_refused_until_the_first_has_ended_in_whatever_way(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=f"another run is writing to {tmp_path}; wait for its end"):
            claim(tmp_path)
        other.kill()
        other.wait()
    claim(tmp_path)
    claim(tmp_path / ".." / tmp_path.name)  # it is ours


def test_who_ends_leaves_no_lock_behind_and_who_is_killed_leaves_it_to_the_next(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        killed.stdout.readline()
        assert (tmp_path / LOCK).exists()
        killed.kill()
    assert (tmp_path / LOCK).exists()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ended:
        ended.stdout.readline()
        ended.stdin.close()
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_was_removed_by_its_holder_is_not_taken_for_one(tmp_path, monkeypatch):
    let_go = take(tmp_path)
    real, waited = claims.is_at, []

    def is_at(handle, path):
        if not waited:  # this one has opened the file and got its lock after the holder let go
            waited.append(path)
            path.unlink()
        return real(handle, path)

    let_go()
    monkeypatch.setattr(claims, "is_at", is_at)
    assert take(tmp_path) is None
    monkeypatch.setattr(claims, "is_at", real)
    assert take(tmp_path) is not None and take(tmp_path) is None


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        take(tmp_path / "folder")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_removed_while_it_is_made_is_tried_again_and_a_file_of_its_name_is_told(tmp_path, monkeypatch):
    folder, make = tmp_path / "folder", Path.mkdir

    def mkdir(self, *arguments, **options):  # it is there, and its holder removes it before it is looked at
        if removed:
            return make(self, *arguments, **options)
        removed.append(self)
        raise FileExistsError(errno.EEXIST, "File exists", str(self))

    removed = []
    monkeypatch.setattr(Path, "mkdir", mkdir)
    claim(folder)
    assert removed == [folder] and (folder / LOCK).exists()
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        (tmp_path / "file").touch()
        with pytest.raises((FileExistsError, NotADirectoryError), match="file"):
            take(path)


TURNS = """
import os, pathlib, sys, time
from bd_diff.data.claims import take
folder, inside = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
turns = 0
while turns < 200:
    if (let_go := take(folder)) is None:
        continue
    handle = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails where two are inside
    os.close(handle)
    inside.unlink()
    let_go()
    turns += 1
"""


def test_never_two_have_a_folder_however_often_it_is_let_go(tmp_path):
    command = [sys.executable, "-c", TURNS, str(tmp_path / "folder"), str(tmp_path / "inside")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    assert not list((tmp_path / "folder").iterdir())
