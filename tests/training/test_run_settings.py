"""Work that goes on by itself does so with the settings it was begun with, or says which one differs."""

from dataclasses import dataclass, replace

import pytest

from bd_diff.training.config import RunConfig
from bd_diff.training.run_settings import keep_settings, settings_of


@dataclass(frozen=True)
class Config:
    run: RunConfig
    families: dict[str, float]
    seeds: tuple[int, ...] = (0, 1)


CONFIG = Config(RunConfig("somewhere", steps=3, batch_size=2), {"line": 0.5, "delta": 0.5})


def test_what_makes_no_difference_to_the_result_may_change(tmp_path):
    keep_settings(tmp_path / "out", settings_of(CONFIG, left_out=("seeds",)))
    (tmp_path / "out/checkpoint-1").mkdir()
    written = (tmp_path / "out/settings.json").read_text()
    run = replace(CONFIG.run, folder="elsewhere", resume=True, save_minutes=1.0, cpu=True)
    changed = replace(CONFIG, run=run, seeds=(0, 1, 2))
    keep_settings(tmp_path / "out", settings_of(changed, left_out=("seeds",)))
    assert (tmp_path / "out/settings.json").read_text() == written


@pytest.mark.parametrize(
    "changed, told",
    [
        (replace(CONFIG, run=replace(CONFIG.run, steps=4)), "run.steps 3, now it is 4"),
        (replace(CONFIG, families={"line": 0.4, "delta": 0.5}), "families.line 0.5, now it is 0.4"),
        (replace(CONFIG, families=CONFIG.families | {"disc": 0.1}), "families.disc None, now it is 0.1"),
        (replace(CONFIG, seeds=(0,)), r"seeds \[0, 1\], now it is \[0\]"),
    ],
)
def test_another_setting_is_refused_by_name_and_the_kept_ones_stay(changed, told, tmp_path):
    keep_settings(tmp_path, settings_of(CONFIG))
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(ValueError, match=f"was begun with {told}"):
        keep_settings(tmp_path, settings_of(changed))
    keep_settings(tmp_path, settings_of(CONFIG))


def test_settings_that_nothing_came_of_may_be_mended(tmp_path):
    keep_settings(tmp_path, {"sharp": "no such folder"})
    keep_settings(tmp_path, {"sharp": "photographs"})
    (tmp_path / "result").touch()
    with pytest.raises(ValueError, match="was begun with sharp photographs, now it is others"):
        keep_settings(tmp_path, {"sharp": "others"})
