"""Checkpoints of a training: complete at any moment, nothing pickled, and without the frozen weights."""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, clean_state_dict_for_safetensors, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import nn
from torch.optim import Optimizer

from bd_diff.data.writing import failed, flush, flush_folder
from bd_diff.models.fingerprint import fingerprint_of
from bd_diff.training.state_files import load_state, save_state

FROZEN = "frozen.json"  # hashes of what a checkpoint leaves out
RECORD = "checkpoint.json"  # SHA-256 of every other file; a folder without it is no checkpoint
STATE = "state.safetensors"
SAVING = "checkpoint-saving"
KEPT = 2


class Checkpoints:
    """The checkpoints of one training, in `folder`.

    A checkpoint holds what `objectives` train and their buffers, the states of `optimizers`, and those of `others`, by
    name: averages, schedules, whatever has `state_dict` and `load_state_dict`. Frozen weights are not stored: before
    loading they must be in place, the same as when the training began.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        objectives: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        others: Mapping[str, Any],
    ):
        self.accelerator, self.folder = accelerator, folder
        self.objectives, self.optimizers, self.others = objectives, optimizers, others
        learning = {id(p) for objective in objectives for p in objective.parameters() if p.requires_grad}
        self.frozen = [
            {name: p for name, p in objective.named_parameters(remove_duplicate=False) if id(p) not in learning}
            for objective in objectives
        ]
        self.last: Path | None = None  # that was loaded or saved last

    @cached_property
    def hashes(self) -> list[str]:
        """The hash of the frozen weights of each objective."""
        return [fingerprint_of(frozen) for frozen in self.frozen]

    def save(self, step: int) -> None:
        """Write a checkpoint, and remove all others but the one before.

        It is written under a temporary name, flushed to the disk and renamed, so that a kill or a full disk leaves a
        complete one. Raises OSError naming the folder.
        """
        networks = [
            {name: t for name, t in objective.state_dict().items() if name not in frozen}
            for objective, frozen in zip(self.objectives, self.frozen, strict=True)
        ]
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        others = {name: other.state_dict() for name, other in self.others.items()}
        if self.accelerator.is_main_process:
            final, saving = self.folder / f"checkpoint-{step}", self.folder / SAVING
            try:
                self.write(saving, networks, optimizers, others)
                replace_folder(saving, final)
                for path in folders(self.folder):
                    if path not in (final, self.last):
                        remove(path)
            except (OSError, SafetensorError) as error:
                raise failed(final, error) from error
            finally:
                shutil.rmtree(saving, ignore_errors=True)
            self.last = final
        self.accelerator.wait_for_everyone()

    def write(self, folder: Path, networks: list, optimizers: list, others: dict[str, dict]) -> None:
        """Write and flush the files of a checkpoint; the record of their hashes comes last."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for index, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
            save_file(clean_state_dict_for_safetensors(network), folder / numbered("model", index), {"format": "pt"})
            save_state(optimizer, folder / numbered("optimizer", index))
        save_state(others, folder / STATE)
        (folder / FROZEN).write_text(json.dumps({"sha256": self.hashes}) + "\n")
        hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        (folder / RECORD).write_text(json.dumps(hashes, indent=1) + "\n")
        flush_folder(folder)

    def load(self) -> int:
        """Load the newest complete checkpoint and return its step; 0 if there is none.

        A damaged one is named on stderr, and the one before it is taken. Raises ValueError if all are damaged, if a
        trained tensor is missing or of another shape, if the frozen weights are not the same to the bit, and if a
        process does not see the checkpoint that the first one chose.
        """
        chosen = [self.choose() if self.accelerator.is_main_process else None]
        (name,) = broadcast_object_list(chosen) if self.accelerator.num_processes > 1 else chosen
        if name is None:
            return 0
        path = self.folder / name
        if not all(gather_object([(path / RECORD).exists()])):
            raise ValueError(f"not every process sees {path}; run.folder must be on a disk that all computers share")
        for index, (objective, optimizer) in enumerate(zip(self.objectives, self.optimizers, strict=True)):
            self.load_network(path, index, objective)
            load_into(optimizer, path / numbered("optimizer", index))
        states = load_state(path / STATE)
        if states.keys() != self.others.keys():
            raise ValueError(
                f"{path / STATE} holds {', '.join(states) or 'nothing'}, but this training has "
                f"{', '.join(self.others) or 'nothing'}; continue with the configuration that it was trained with"
            )
        for name, other in self.others.items():
            other.load_state_dict(states[name])
        self.last = path
        return step_of(path)

    def choose(self) -> str | None:
        """The name of the newest complete checkpoint; damaged ones are named on stderr."""
        found, told = recorded(self.folder), []
        for path in found:
            fault = damage(path)
            if fault is None:
                return path.name
            told.append(fault)
            print(f"{fault}; looking for the checkpoint before it", file=sys.stderr, flush=True)
        if told:
            raise ValueError(f"no checkpoint in {self.folder} is whole: {told[0]}; begin again in another folder")
        if old := pickled(self.folder):
            raise ValueError(f"{old} is of an earlier version, which wrote pickles; begin again in another folder")
        return None

    def load_network(self, folder: Path, index: int, objective: nn.Module) -> None:
        path, frozen = folder / numbered("model", index), self.frozen[index]
        try:
            missing, _ = load_model(objective, path, strict=False)
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path} cannot be loaded into this training: {reason}") from error
        if lacking := sorted(set(missing) - set(frozen)):
            raise ValueError(f"{path} lacks {lacking[0]}; continue with the configuration that it was trained with")
        if not missing:
            return
        expected = json.loads((folder / FROZEN).read_text())["sha256"][index]
        if self.hashes[index] != expected:
            raise ValueError(
                f"{path} was trained over other frozen weights (sha256 {expected[:12]}, now "
                f"{self.hashes[index][:12]}); continue with the base, starting pipeline and seed of its beginning"
            )


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps."""
    return next((path for path in recorded(folder) if damage(path) is None), None)


def recorded(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, perhaps damaged since, newest first."""
    return sorted((path for path in folders(folder) if (path / RECORD).exists()), key=step_of, reverse=True)


def begun(folder: Path) -> bool:
    """Whether a training has reached a checkpoint in this folder, complete or not."""
    return bool(recorded(folder) or pickled(folder))


def pickled(folder: Path) -> Path | None:
    """A checkpoint of an earlier version, which is a pickle; None if there is none."""
    return next((path for path in folders(folder) if (path / "random_states_0.pkl").exists()), None)


def folders(folder: Path) -> list[Path]:
    """All folders with the name of a checkpoint."""
    found = (path for path in folder.glob("checkpoint-*") if path.is_dir())
    return [path for path in found if path.name.split("-", 1)[1].isdigit()]


def damage(path: Path) -> str | None:
    """A sentence naming the first file of a checkpoint that has changed since it was written; None if none has."""
    try:
        written = (path / RECORD).stat().st_mtime_ns
    except OSError:
        return f"{path / RECORD} is missing"
    return found_damage(path.absolute(), written)


@cache
def found_damage(path: Path, written: int) -> str | None:
    """`damage` of a checkpoint recorded at the time `written`; cached, as hashing gigabytes once is enough."""
    needed = {STATE, FROZEN, numbered("model", 0), numbered("optimizer", 0)}
    try:
        digests = json.loads((path / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        digests = None
    if not isinstance(digests, dict) or not needed <= digests.keys():
        return f"{path / RECORD} is damaged"
    for name, digest in digests.items():
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if sha256(path / name) != digest:
            return f"{path / name} is damaged"
    return None


def step_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def numbered(what: str, index: int) -> str:
    """The file name of the network or optimizer of turn `index`."""
    return f"{what}{f'_{index}' if index else ''}.safetensors"


def load_into(optimizer: Optimizer, path: Path) -> None:
    state = load_state(path)
    try:
        optimizer.load_state_dict(state)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit this training's optimizer: {reason}") from error


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a complete folder to its final name, and flush that to the disk."""
    if final.exists():
        remove(final)
    temporary.rename(final)
    flush(final.parent)


def remove(path: Path) -> None:
    """Remove a checkpoint, its record first, so that half a checkpoint never counts as one."""
    (path / RECORD).unlink(missing_ok=True)
    shutil.rmtree(path)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
