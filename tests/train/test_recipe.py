"""The recipe of the shipped model fits the configurations as they are."""

import os
import re
import subprocess

from bd_diff_toys import ROOT

from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig
from train.kernel_bank import BankConfig

ECHO = '#!/bin/sh\nprintf "%s\\037" "$@" && printf "\\036"\n'  # in place of Python: tells what it was given


def calls(folder) -> list[list[str]]:
    """The arguments of all calls that the recipe makes, without those of the launcher."""
    (folder / "python").write_text(ECHO)
    (folder / "python").chmod(0o755)
    (folder / "runs/finish_bank").mkdir(parents=True)  # which is copied
    command = ["sh", ROOT / "configs/bd_diff_tiny/recipe.sh", "PHOTOS", "BLURRY"]
    given = os.environ | {"PYTHON": str(folder / "python")}
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("runs/model is trained\n"), done.stderr
    found = [call.split("\037")[:-1] for call in re.sub(r"== .*\n", "", done.stdout).split("\036")[:-1]]
    return [call[4:] if call[0] == "-m" else call for call in found]


def test_every_step_of_the_recipe_can_be_begun_with_what_those_before_it_made(tmp_path):
    made = {"runs/cameras_finish_bank"}  # a copy
    for script, *given in calls(tmp_path):
        if script == "train/average.py":
            needed, result = given[:2], given[given.index("--out") + 1]
        elif script == "-c":
            needed = re.findall(r"from_pretrained\('(.+?)'\)", given[0])
            (result,) = re.findall(r"save_pretrained\('(.+?)'\)", given[0])
        else:
            given = [str(ROOT / one) if one.startswith("configs/") else one for one in given]
            if script == "train/joint.py":
                config = load_config(JointConfig, given)
                needed, result = [config.start_from, *config.data.bank, *config.data.estimates], config.run.folder
                assert config.data.sharp == "PHOTOS" and config.data.exclude == "PHOTOS/val.txt"
            else:
                bank = load_config(BankConfig, given)
                needed, result = [bank.estimator], bank.folder
                assert bank.sharp == "PHOTOS" and bank.exclude == "PHOTOS/val.txt"
        missing = {one.removesuffix("/pipeline") for one in filter(None, needed)} - made
        assert not missing, (script, given, missing)
        made.add(result)
    assert "runs/model" in made
