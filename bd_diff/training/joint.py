"""BD-Diff's joint training as a function: what train/joint.py and `bd-diff adapt` both run."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from bd_diff.blur.kernels import SIZE
from bd_diff.data.crops import SharpCrops
from bd_diff.data.photographs import MEMORY, Photographs
from bd_diff.data.procedural import ProceduralImages
from bd_diff.models.conditioning import guess_count
from bd_diff.models.unet import NAFUNet
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.stable_diffusion.adapters import add_lora, has_lora
from bd_diff.stable_diffusion.base_model import load_base, widen_input
from bd_diff.stable_diffusion.vaes import put_vae
from bd_diff.training.config import RunConfig
from bd_diff.training.kernel_bank import read_bank
from bd_diff.training.loop import Turn, fit, report, start
from bd_diff.training.memory_savings import (
    choose_trained,
    make_optimizer,
    memory_estimate,
    use_attention,
    use_checkpointing,
)
from bd_diff.training.objective import READER_TASKS, TARGET_TASKS, JointObjective
from bd_diff.training.pipelines import build_pipeline, load_pipeline, pipeline_from_base, save_pipeline
from bd_diff.training.samples import JointSamples, collate_joint
from bd_diff.training.validation import Validation


@dataclass(frozen=True)
class DataConfig:
    """Photographs to learn from."""

    sharp: str | None = None  # folder of images, or of shards by `datasets`; None trains on procedural images
    exclude: str | None = None  # text file of names in `sharp` that are kept for validation
    target: str | None = None  # folder of unpaired blurry photographs
    target_exclude: str | None = None  # text file of names in `target` that are kept for judging
    bank: tuple[str, ...] = ()  # folders made by train/kernel_bank.py: the reader of blur learns from them
    estimates: tuple[str, ...] = ()  # others, made with an estimator: the restorer learns from them
    window: int = 256  # pixels a side that blur is read from
    crop: int = 128  # pixels a side that the restorer is trained on
    validation_photographs: int = 8
    memory: float = MEMORY  # GiB that a machine keeps of decoded photographs; the others are read when they are drawn


@dataclass(frozen=True)
class JointConfig:
    """BD-Diff's joint training."""

    run: RunConfig
    networks: dict[str, Any]  # section per component: the keyword arguments of its constructor
    optimizer: dict[str, Any]  # keyword arguments of torch.optim.AdamW; `class: AdamW8bit` for that of bitsandbytes
    weights: dict[str, float]  # of the tasks, see bd_diff.training.objective
    families: dict[str, float]  # shares of the synthetic blurs, see bd_diff.blur.synthesis
    variation: float = 0.0  # in every second batch blur differs over the image by up to this
    linear_light: bool = False  # the UNet sees deconvolutions in linear light, too; as the pipeline does if it does
    noise: float = 2 / 255
    noise_skew: float = 1.0  # this and the next four: see `bd_diff.blur.camera.RandomCamera`
    curve: float | str = 1.0
    curve_share: float = 1.0
    jpeg: int = 0
    jpeg_share: float = 0.5
    transfer_rows: int = 2  # of a batch
    target_rows: int = 1  # of a batch
    last_step_share: float = 0.75  # of the samples are denoised from noise alone, as one-step sampling does
    back_translation_from: int = 0  # step
    carried: int = 4  # kernels a step in the task `carry`
    trained: tuple[str, ...] = ()  # networks that learn, the others stay as they are; none named: all but the VAE
    start_from: str | None = None  # pipeline folder to begin with instead of random weights
    base: tuple[
        str, ...
    ] = ()  # Stable Diffusion to begin with: folders, hub ids or a file, see stable_diffusion/base_model.py
    base_config: str | None = None  # folder or hub id that describes a base of a single file
    vae: str | None = None  # folder or hub id of a refined VAE (train/refine_vae.py) or AutoencoderTiny instead
    lora_rank: int = 0  # LoRA on the UNet instead of training all of it; the model is then saved as an adapter
    gradient_checkpointing: bool = False  # less memory, more time
    attention_backend: str = "sdpa"  # or xformers
    # Of the prediction: absolute; squared, as Stable Diffusion was trained; or log, that of the mean squared error of
    # each image, so that all count alike, as NAFNet was trained (Chen et al. 2022).
    error: str = "absolute"
    snr_gamma: float = 0.0  # min-SNR weighting (Hang et al. 2023, there 5); 0 weighs all timesteps alike
    sampling_steps: int = 1  # of the samples that training on unpaired photographs draws
    compile: bool = False  # the UNet, with torch.compile; needs a C++ compiler
    data: DataConfig = field(default_factory=DataConfig)


def train_joint(
    config: JointConfig,
    watch: Callable[[BDDiffPipeline, JointObjective], Callable[[int], dict[str, float]]] | None = None,
    stop: Callable[[], bool] | None = None,
) -> bool:
    """Train as `config` says; the finished model goes to `run.folder/pipeline`. Whether it came to its end.

    `watch(pipeline, objective)` makes what is called at every validation instead of the usual figures on
    `data.exclude`; `stop` is `fit`'s. Raises ValueError for a configuration or folders that cannot be used.
    """
    data, run = config.data, config.run
    torch.manual_seed(run.seed)
    pipeline = starting_pipeline(config)
    objective = joint_objective(config, pipeline)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    if run.dry_run:
        report(config, objective.networks, *estimates(config, objective.networks))
        return False
    optimizer = make_optimizer(trained, config.optimizer)
    if config.compile:
        objective.networks["unet"].compile(dynamic=False)
    accelerator = start(run)
    if objective.carries_alone and accelerator.num_processes > 1:
        raise ValueError("weights: carry alone teaches a part of the networks; train it in one process")
    samples = joint_samples(config)
    validate = None
    if watch:
        validate = watch(pipeline, objective)
    elif data.sharp and data.exclude:
        validate = Validation(pipeline, data.sharp, data.exclude, data.validation_photographs, Path(run.folder))
    return fit(
        accelerator,
        [Turn(objective, optimizer)],
        samples,
        run,
        save=lambda folder: save_pipeline(pipeline, folder / "pipeline"),
        validate=validate,
        collate=collate_joint,
        stop=stop,
    )


def starting_pipeline(config: JointConfig) -> BDDiffPipeline:
    """What training begins with: a saved pipeline or adapter, a Stable Diffusion, or random weights. A dry run reads
    only the configuration of a Stable Diffusion.
    """
    if config.start_from:
        pipeline = load_pipeline(config.start_from)
    elif config.base:
        with torch.device("meta") if config.run.dry_run else nullcontext():
            base = load_base(config.base, config.base_config, weights=not config.run.dry_run)
            pipeline = pipeline_from_base(base, config.networks)
    else:
        pipeline = build_pipeline(config.networks)
    if config.vae and not config.run.dry_run:
        put_vae(pipeline, config.vae)
    if config.linear_light and not pipeline.config.linear_light:
        see_linear_light(pipeline)
    if config.lora_rank and not has_lora(pipeline.unet):
        if not pipeline.config.base:
            raise ValueError("lora_rank: LoRA needs a base; set base or start from a pipeline of `bd-diff init`")
        add_lora(pipeline.unet, config.lora_rank)
    return pipeline


def see_linear_light(pipeline: BDDiffPipeline) -> None:
    """Let the UNet see deconvolutions in linear light, too; until it is trained they change nothing. Raises ValueError
    for a pipeline that sees no deconvolutions.
    """
    if pipeline.blur_decoder is None:
        raise ValueError("linear_light: without a blur_decoder there are no deconvolutions; set it to false")
    unet, added = pipeline.unet, guess_count(True) - guess_count(False)
    channels = unet.config.in_channels + added * pipeline.vae.config.latent_channels
    if isinstance(unet, NAFUNet):
        unet.widen_input(channels)
    else:
        widen_input(unet, channels)
    pipeline.register_to_config(linear_light=True)


def estimates(config: JointConfig, networks: nn.ModuleDict) -> list[str]:
    """What a dry run says beside sizes and configuration."""
    lines = [memory_estimate(networks, config.optimizer, bool(config.run.ema_decay))]
    if config.data.sharp:
        count, batch = (
            len(Photographs(config.data.sharp, config.data.exclude)),
            config.run.batch_size * config.run.gradient_accumulation,
        )
        lines.append(f"steps per epoch: {count / batch:.1f} on one process ({count} photographs, {batch} a step)")
    return lines


def joint_objective(config: JointConfig, pipeline: BDDiffPipeline) -> JointObjective:
    """The objective over a pipeline's networks. Raises ValueError for settings that they do not have."""
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    choose_trained(networks, config.trained)
    if "blur_decoder" in networks and not any(config.weights.get(task) for task in READER_TASKS):
        networks["blur_decoder"].requires_grad_(False)  # nothing would teach it
    use_attention(networks["unet"], config.attention_backend)
    if config.gradient_checkpointing:
        use_checkpointing(networks)
    return JointObjective(
        networks.train(),
        pipeline.scheduler,
        weights=config.weights,
        families=config.families,
        variation=config.variation,
        noise=config.noise,
        curve=config.curve,
        curve_share=config.curve_share,
        jpeg=config.jpeg,
        jpeg_share=config.jpeg_share,
        noise_skew=config.noise_skew,
        transfer_rows=config.transfer_rows,
        target_rows=config.target_rows,
        crop=config.data.crop,
        last_step_share=config.last_step_share,
        back_translation_from=config.back_translation_from,
        residual=pipeline.config.residual,
        error=config.error,
        snr_gamma=config.snr_gamma,
        sampling_steps=config.sampling_steps,
        linear_light=pipeline.config.linear_light,
        consistency=pipeline.config.consistency,
        carried=config.carried,
    )


def joint_samples(config: JointConfig) -> Dataset:
    """The training samples that `config.data` names."""
    data, seed = config.data, config.run.seed
    wide = data.window + SIZE - 1  # so that every pixel's blur is real
    crops: SharpCrops | ProceduralImages
    if data.sharp:
        crops = SharpCrops(Photographs(data.sharp, data.exclude, memory=data.memory).check_sizes(wide), wide, seed)
    else:
        crops = ProceduralImages(wide, seed)
    if data.target and not any(config.weights.get(task) for task in TARGET_TASKS):
        raise ValueError(f"data.target: no task on photographs has a weight; give one to {', '.join(TARGET_TASKS)}")
    targets = None
    if data.target:
        targets = Photographs(data.target, data.target_exclude, memory=data.memory).check_sizes(data.crop)
    bank = read_bank(data.bank) if data.bank else None
    estimates = read_bank(data.estimates, ("kernel", "estimate")) if data.estimates else None
    return JointSamples(crops, data.crop, targets, bank, estimates)
