"""Checkpoints of a training: complete at any moment, and without the weights that training leaves as they came."""

import json
import os
import shutil
from functools import cache
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from bd_diff.models.fingerprint import fingerprint_of

FROZEN = "frozen.json"  # hashes of what a checkpoint leaves out


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write beside, rename, then drop the older ones: a kill at any moment leaves a complete checkpoint."""
    temporary, final = folder / "checkpoint-saving", folder / f"checkpoint-{step}"
    if accelerator.is_main_process and temporary.exists():
        shutil.rmtree(temporary)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        older = [path for path in folder.glob("checkpoint-*") if path not in (temporary, final)]
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        for path in older:
            shutil.rmtree(path)
    accelerator.wait_for_everyone()


def leave_out_frozen(accelerator: Accelerator, objectives: list[nn.Module]) -> None:
    """Let checkpoints hold of `objectives`, prepared in this order, only what one of them trains, and buffers.

    The rest has to be in place before a checkpoint is loaded, from where it came when the training began: loading
    raises ValueError where it is not the same to the bit, and where a trained tensor is missing or of another shape.
    """
    learning = {id(p) for objective in objectives for p in objective.parameters() if p.requires_grad}
    left_out = [
        {name: p for name, p in objective.named_parameters(remove_duplicate=False) if id(p) not in learning}
        for objective in objectives
    ]

    @cache
    def hashes() -> list[str]:
        return [fingerprint_of(frozen) for frozen in left_out]

    def save(models: list[nn.Module], weights: list[dict], folder: str) -> None:
        for index, (objective, frozen) in enumerate(zip(objectives, left_out, strict=True)):
            weights[index] = {name: t for name, t in objective.state_dict().items() if name not in frozen}
        if accelerator.is_main_process:
            (Path(folder) / FROZEN).write_text(json.dumps({"sha256": hashes()}) + "\n")

    def load(models: list[nn.Module], folder: str) -> None:
        for index, (objective, frozen) in enumerate(zip(objectives, left_out, strict=True)):
            path = Path(folder) / f"model{f'_{index}' if index else ''}.safetensors"
            try:
                missing, _ = load_model(objective, path, strict=False)
            except (OSError, RuntimeError, SafetensorError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{path} cannot be loaded into this training: {reason}") from error
            if lacking := sorted(set(missing) - set(frozen)):
                raise ValueError(f"{path} lacks {lacking[0]}; continue with the configuration that it was trained with")
            if not missing:
                continue
            known = json.loads((Path(folder) / FROZEN).read_text())["sha256"][index]
            if hashes()[index] != known:
                raise ValueError(
                    f"{path} was trained over other frozen weights (sha256 {known[:12]}, now {hashes()[index][:12]}); "
                    "continue with the base, starting pipeline and seed of its beginning"
                )
        models.clear()  # they are loaded

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
