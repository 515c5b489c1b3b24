"""BD-Diff's joint training as a function: what train/joint.py and `bd-diff adapt` both run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from bd_diff.blur.kernels import SIZE
from bd_diff.config import RunConfig, construct
from bd_diff.data.batches import JointSamples, SharpCrops, collate_joint, read_photographs
from bd_diff.data.kernel_bank import read_bank
from bd_diff.data.procedural import ProceduralImages
from bd_diff.objective import JointObjective
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.training import Turn, fit, report, start
from bd_diff.validation import Validation
from bd_diff.variants import build_pipeline, load_pipeline, save_pipeline


@dataclass(frozen=True)
class DataConfig:
    """Photographs to learn from."""

    sharp: str | None = None  # folder; None trains on procedural images
    exclude: str | None = None  # text file of names in `sharp` that are kept for validation
    target: str | None = None  # folder of unpaired blurry photographs
    target_exclude: str | None = None  # text file of names in `target` that are kept for judging
    bank: str | None = None  # folder made by train/kernel_bank.py: the reader of blur learns from it
    estimates: str | None = None  # another one, made with an estimator: the restorer learns from it
    window: int = 256  # pixels a side that blur is read from
    crop: int = 128  # pixels a side that the restorer is trained on
    validation_photographs: int = 8


@dataclass(frozen=True)
class JointConfig:
    """BD-Diff's joint training."""

    run: RunConfig
    networks: dict[str, Any]  # section per component: the keyword arguments of its constructor
    optimizer: dict[str, Any]  # keyword arguments of torch.optim.AdamW
    weights: dict[str, float]  # of the tasks, see bd_diff.objective
    families: dict[str, float]  # shares of the synthetic blurs, see bd_diff.blur.synthesis
    noise: float = 2 / 255
    transfer_rows: int = 2  # of a batch
    target_rows: int = 1  # of a batch
    last_step_share: float = 0.75  # of the samples are denoised from noise alone, as one-step sampling does
    back_translation_from: int = 0  # step
    trained: tuple[str, ...] = ()  # networks that learn, the others stay as they are; none named: all but the VAE
    start_from: str | None = None  # pipeline folder to begin with instead of random weights
    compile: bool = False  # the UNet, with torch.compile; needs a C++ compiler
    data: DataConfig = field(default_factory=DataConfig)


def train_joint(
    config: JointConfig,
    watch: Callable[[BDDiffPipeline, JointObjective], Callable[[int], dict[str, float]]] | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Train as `config` says; the finished model goes to `run.folder/pipeline`.

    `watch(pipeline, objective)` makes what is called at every validation instead of the usual figures on
    `data.exclude`; `stop` is `fit`'s. Raises ValueError for a configuration or folders that cannot be used.
    """
    data, run = config.data, config.run
    torch.manual_seed(run.seed)
    pipeline = load_pipeline(config.start_from) if config.start_from else build_pipeline(config.networks)
    objective = joint_objective(config, pipeline)
    if config.compile:
        objective.networks["unet"].compile(dynamic=False)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = construct(torch.optim.AdamW, {"params": trained} | config.optimizer, "optimizer")
    if run.dry_run:
        return report(config, objective.networks)
    accelerator = start(run)
    samples = joint_samples(config)
    validate = None
    if watch:
        validate = watch(pipeline, objective)
    elif data.sharp and data.exclude:
        validate = Validation(pipeline, data.sharp, data.exclude, data.validation_photographs, Path(run.folder))
    fit(
        accelerator,
        [Turn(objective, optimizer)],
        samples,
        run,
        save=lambda folder: save_pipeline(pipeline, folder / "pipeline"),
        validate=validate,
        collate=collate_joint,
        stop=stop,
    )


def joint_objective(config: JointConfig, pipeline: BDDiffPipeline) -> JointObjective:
    """The objective over a pipeline's networks. Raises ValueError where `config.trained` names another."""
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    if unknown := set(config.trained) - set(networks):
        raise ValueError(f"trained: there is no network {min(unknown)}; known are {', '.join(networks)}")
    for name, network in networks.items():
        network.requires_grad_(name in config.trained if config.trained else name != "vae")
    return JointObjective(
        networks.train(),
        pipeline.scheduler,
        weights=config.weights,
        families=config.families,
        noise=config.noise,
        transfer_rows=config.transfer_rows,
        target_rows=config.target_rows,
        crop=config.data.crop,
        last_step_share=config.last_step_share,
        back_translation_from=config.back_translation_from,
        residual=pipeline.config.residual,
    )


def joint_samples(config: JointConfig) -> Dataset:
    """The training samples that `config.data` names."""
    data, seed = config.data, config.run.seed
    wide = data.window + SIZE - 1  # so that every pixel's blur is real
    if data.sharp:
        crops = SharpCrops(read_photographs(data.sharp, data.exclude, skip_smaller_than=wide), wide, seed)
    else:
        crops = ProceduralImages(wide, seed)
    targets = read_photographs(data.target, data.target_exclude, skip_smaller_than=data.crop) if data.target else None
    bank = read_bank(data.bank) if data.bank else None
    estimates = read_bank(data.estimates, ("kernel", "estimate")) if data.estimates else None
    return JointSamples(crops, data.crop, targets, bank, estimates)
