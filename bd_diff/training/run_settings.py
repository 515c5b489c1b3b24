"""Keeps the settings of resumable work (adaptations, experiments, sweeps, banks), which must not change on the way."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bd_diff.data.claims import LOCK
from bd_diff.data.writing import replacing
from bd_diff.models.model_folder import read_json
from bd_diff.training.config import to_dict

WITHOUT_EFFECT = ("folder", "resume", "dry_run", "save_minutes", "log_every", "trackers", "workers", "cpu")


def settings_of(config: Any, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entries of a configuration by dotted name, without those in `left_out` or without effect on the result."""
    gone = {*left_out, *(f"run.{name}" for name in WITHOUT_EFFECT)}
    return {name: value for name, value in flat(to_dict(config)).items() if name not in gone}


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Store the settings of the work that begins in `folder`, in its `settings.json`.

    Raises ValueError, naming the entry, if work in that folder began with other settings: its files would be taken for
    results of these. Other settings are replaced as long as there are no files beside them.
    """
    path, given = folder / "settings.json", json.loads(json.dumps(settings))
    if not path.exists() or {one.name for one in folder.iterdir()} <= {path.name, LOCK}:
        with replacing(path) as part:
            part.write_text(json.dumps(given, indent=1) + "\n")
        return
    kept = read_json(path, "give another folder")
    for name in {**kept, **given}:
        before, now = kept.get(name), given.get(name)
        if before != now:
            raise ValueError(f"{folder} was begun with {name} {before}, now it is {now}; give another folder")
