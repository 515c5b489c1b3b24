"""The short form of tests/benches/campaign.py: seconds of what it does for an hour."""

import campaign
import pytest


@pytest.mark.parametrize("part", [["mutants", "--mutants", "400"], ["disk"], ["deblur", "--kills", "6"]])
def test_nothing_is_lost(part, capsys):
    assert campaign.main(["--only", *part, "--seed", "1"]) == 0
    assert capsys.readouterr().out.endswith("nothing was lost\n")
