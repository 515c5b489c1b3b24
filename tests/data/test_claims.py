"""A folder belongs to one run at a time."""

import subprocess
import sys

import pytest

from bd_diff.data import claims
from bd_diff.data.claims import claim

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
