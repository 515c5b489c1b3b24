"""The main experiment: does training on unpaired photographs of a domain improve deblurring in that domain?

A model is trained on the source domain. Each row then trains it for as many steps again, on the data that its name
says, and is scored on held-out pairs of each target domain. Finished parts are kept: a stopped experiment can go on.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from bd_diff.adaptation.blur_mix import CAMERA, synthesis_like
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.baselines.sweep import WEIGHTS
from bd_diff.baselines.uresnet import UResNetObjective
from bd_diff.baselines.validation import save_whole
from bd_diff.blur.domains import find_domain
from bd_diff.data.crops import SharpCrops
from bd_diff.data.folders import Folder
from bd_diff.data.images import list_images, listed_images
from bd_diff.data.photographs import Photographs
from bd_diff.data.synthetic import MANIFEST, write_domain
from bd_diff.data.writing import replacing
from bd_diff.evaluation.evaluate import evaluate, paired_cases, summary
from bd_diff.evaluation.methods import open_method
from bd_diff.evaluation.metrics import lpips
from bd_diff.evaluation.protocols import find_protocol
from bd_diff.models.components import construct
from bd_diff.training.checkpoints import begun
from bd_diff.training.config import RunConfig
from bd_diff.training.joint import DataConfig, JointConfig, joint_objective, train_joint
from bd_diff.training.loop import Turn, fit, start
from bd_diff.training.losses import WeightedLosses
from bd_diff.training.memory_savings import make_optimizer
from bd_diff.training.objective import JointObjective
from bd_diff.training.pairs import BORDER, BlurConfig, PairedCrops
from bd_diff.training.pipelines import load_pipeline, save_pipeline
from bd_diff.training.run_settings import keep_settings, settings_of

# What the tasks on target photographs weigh in each row that has them.
JOINT_ROWS = {
    "joint without back-translation": {"cross_crop": 0.1, "reconstruction": 0.1, "back_translation": 0.0},
    "joint": {"cross_crop": 0.1, "reconstruction": 0.1, "back_translation": 0.3},
    "joint without reconstruction": {"cross_crop": 0.1, "reconstruction": 0.0, "back_translation": 0.3},
}
FITTED_ROWS = {"fitted blur": {}, "joint on fitted blur": JOINT_ROWS["joint"]}  # see `bd_diff.adaptation.blur_mix`
CAMERA_BLUR = "supervised on camera blur"  # as much of cameras as in the fitted rows, and nothing of the target
ROWS = ("input", "wiener", "supervised", CAMERA_BLUR, *JOINT_ROWS, *FITTED_ROWS, "regression", "ceiling")


@dataclass(frozen=True)
class ExperimentConfig:
    """Rows by targets by seeds; `run.folder` holds everything, `run.steps` are those of each of the two stages."""

    run: RunConfig
    sharp: str  # folder of sharp photographs
    test: str  # text file of those that are only scored on
    regression: dict[str, Any]  # NAFNet's, of as many parameters
    regression_steps: int  # as many as take the time of both stages
    optimizer: dict[str, Any]
    networks: dict[str, Any] = field(default_factory=dict)  # BD-Diff's, as in a configuration of train/joint.py
    start_from: str | None = None  # a trained BD-Diff instead: its training was the source domain's
    rows: tuple[str, ...] = ROWS
    targets: tuple[str, ...] = ("rolling-shake", "night-shake", "defocus")
    seeds: tuple[int, ...] = (0, 1, 2)
    families: dict[str, float] = field(default_factory=lambda: {"delta": 0.1, "gaussian": 0.45, "line": 0.45})
    noise: float = 4 / 255
    severity: float = 1.0  # of the target domains
    window: int = 256  # pixels a side that blur is read from
    crop: int = 128  # pixels a side that restorers are trained on
    fast: bool = True  # score without the kernel search


class PairedObjective(JointObjective):
    """The upper bound: deblurring trained on the target's own pairs `blurry` and `sharp` `(B, 3, H, W)` in [0, 1].

    The kernel is unknown where blur varies, so the blur decoder learns through the deconvolutions.
    """

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        blurry, sharp = (batch[side] * 2 - 1 for side in ("blurry", "sharp"))
        features, tokens, kernels = self.read_blur(blurry)
        guesses = self.deblur_guesses(blurry, kernels)
        task = self.prepare(sharp, guesses, features.structure, tokens[:1], 0.0, self.draw(sharp, generator))
        return {"loss": self.denoise({"deblur": task})["deblur"]}


def run_experiment(config: ExperimentConfig) -> list[dict]:
    """Train and score what is missing; returns a row per (target, seed, row) and writes `results.json` and `table.md`.

    Raises ValueError for a configuration or folders that cannot be used, where a training was stopped, and where
    `run.folder` is of an experiment with other settings; rows, targets and seeds may be added.
    """
    if unknown := set(config.rows) - set(ROWS):
        raise ValueError(f"rows: there is no row {min(unknown)!r}; the rows are {', '.join(ROWS)}")
    for name in ("rows", "targets", "seeds"):
        if not getattr(config, name):
            raise ValueError(f"{name}: at least one is needed")
    folder = Path(config.run.folder)
    keep_settings(folder, settings_of(config, left_out=("rows", "targets", "seeds")))
    photographs = make_domains(config, folder)
    rows = []
    for seed in config.seeds:
        for target in config.targets:
            for row in config.rows:
                model = train_row(config, row, target, seed, photographs)
                rows.append(score_row(config, row, target, seed, model))
                write_results(rows, folder)
    return rows


def make_domains(config: ExperimentConfig, folder: Path) -> Path:
    """Write `domains/<target>/{train,test}` where they are missing; returns the folder of the sharp training halves.

    Half of the training photographs are blurred for the target, the other half are the sharp ones to learn from: no
    photograph is in both. Those named in `test` are in neither.
    """
    paths, held_out = list_images(config.sharp), listed_images(config.sharp, config.test)
    training = [path for path in paths if path not in set(held_out)]
    parts = {"train": training[::2], "test": held_out}
    for target in config.targets:
        find_domain(target)
        for part, chosen in parts.items():
            out = folder / "domains" / target / part
            if not (out / MANIFEST).exists():
                write_domain(chosen, out, target, severity=config.severity, seed=len(part))
    excluded = folder / "domains" / "not_for_sharp.txt"
    with replacing(excluded) as file:
        file.write_text("".join(f"{path.name}\n" for path in paths if path not in set(training[1::2])))
    return excluded


def train_row(config: ExperimentConfig, row: str, target: str, seed: int, excluded: Path) -> Path | None:
    """The model folder of a row, trained where it is not there yet; None for rows that need no training."""
    base = Path(config.run.folder) / f"seed{seed}"
    if row == "input":
        return None
    if row == "regression":
        return train_regression(config, base / "regression", seed, excluded)
    if config.start_from:
        source = Path(config.start_from)
    else:
        source = train_joint_row(config, base / "source", seed, excluded, None)
    if row in ("supervised", "wiener"):
        return train_joint_row(config, base / "supervised", seed, excluded, source)
    if row == CAMERA_BLUR:
        return train_joint_row(config, base / "camera-blur", seed, excluded, source, None, {}, CAMERA)
    out = base / target / row.replace(" ", "-")
    if row == "ceiling":
        return train_ceiling(config, out, seed, source, target)
    photographs = Path(config.run.folder) / "domains" / target / "train" / "blurry"
    if row in JOINT_ROWS:
        return train_joint_row(config, out, seed, excluded, source, photographs, JOINT_ROWS[row])
    sharp = partial(Photographs, config.sharp, excluded)
    kept = base / target / "fitted_blur.json"
    like = synthesis_like(photographs, str(source), sharp, config.families, config.noise, kept)
    weights = FITTED_ROWS[row]
    return train_joint_row(config, out, seed, excluded, source, photographs if weights else None, weights, like)


def run_of(config: ExperimentConfig, out: Path, seed: int, **values) -> RunConfig:
    """The settings of one training in the folder `out`; it resumes if that folder has a checkpoint already."""
    resume = begun(out)
    return replace(config.run, folder=str(out), seed=seed, resume=resume, trackers=(), validate_every=0, **values)


def joint_config(
    config: ExperimentConfig,
    out: Path,
    seed: int,
    excluded: Path,
    source: Path | None,
    target: Path | None = None,
    weights: Mapping[str, float] = {},  # noqa: B006
    synthesis: Mapping[str, Any] = {},  # noqa: B006
) -> JointConfig:
    """BD-Diff's training of one row. `synthesis` replaces the source domain's families and noise."""
    return JointConfig(
        run=run_of(config, out, seed),
        networks={} if source else config.networks,
        start_from=str(source) if source else None,
        optimizer=config.optimizer,
        weights={"kernel": 0.5, "carry": 0.2, "deblur": 1.0, "transfer": 0.2, **weights},
        **{"families": config.families, "noise": config.noise, **synthesis},
        data=DataConfig(
            sharp=config.sharp,
            exclude=str(excluded),
            target=str(target) if target else None,
            window=config.window,
            crop=config.crop,
        ),
    )


def train_joint_row(config: ExperimentConfig, out: Path, seed: int, *given) -> Path:
    """`train_joint` into `out`, unless it is there."""
    if not (out / "pipeline").exists():
        timed(out, lambda: train_joint(joint_config(config, out, seed, *given)))
    return finished(out, out / "pipeline")


def train_ceiling(config: ExperimentConfig, out: Path, seed: int, source: Path, target: str) -> Path:
    """The upper bound: the source's model, trained further on the target's own pairs."""
    pairs = Path(config.run.folder) / "domains" / target / "train"

    def train() -> None:
        torch.manual_seed(seed)
        pipeline = load_pipeline(str(source))
        joint = joint_objective(joint_config(config, out, seed, pairs, source), pipeline)
        objective = PairedObjective(
            joint.networks,
            pipeline.scheduler,
            {"deblur": 1.0},
            config.families,
            residual=pipeline.config.residual,
            linear_light=pipeline.config.linear_light,
        )
        trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(trained, config.optimizer)
        samples = PairedCrops(Folder(pairs).items, config.crop, seed)
        run = run_of(config, out, seed)
        fit(
            start(run),
            [Turn(objective, optimizer)],
            samples,
            run,
            save=lambda folder: save_pipeline(pipeline, folder / "pipeline"),
        )

    if not (out / "pipeline").exists():
        timed(out, train)
    return finished(out, out / "pipeline")


def train_regression(config: ExperimentConfig, out: Path, seed: int, excluded: Path) -> Path:
    """A NAFNet on the source domain."""

    def train() -> None:
        torch.manual_seed(seed)
        network = construct(NAFNet, config.regression, "regression")
        size = config.crop + BORDER
        crops = SharpCrops(Photographs(config.sharp, excluded).check_sizes(size), size, seed)
        run = run_of(config, out, seed, steps=config.regression_steps)
        blur = BlurConfig(families=config.families, noise=config.noise)
        objective = UResNetObjective(network, WeightedLosses({"mae": 1.0}), blur)
        optimizer = make_optimizer(list(network.parameters()), config.optimizer)
        fit(start(run), [Turn(objective, optimizer)], crops, run, partial(save_whole, network))

    if not (out / WEIGHTS).exists():
        timed(out, train)
    return finished(out, out / WEIGHTS).parent


def timed(out: Path, train) -> None:
    """Run `train`, and add the seconds that it took to `out/seconds.txt`."""
    started, path = time.perf_counter(), out / "seconds.txt"
    train()
    before = float(path.read_text()) if path.exists() else 0.0
    with replacing(path) as part:
        part.write_text(f"{before + time.perf_counter() - started:.1f}\n")


def finished(out: Path, wanted: Path) -> Path:
    """Return `wanted`. Raises ValueError if the training in `out` was stopped before it wrote that."""
    if not wanted.exists():
        raise ValueError(f"the training in {out} was stopped; run the same command again to go on")
    return wanted


def score_row(config: ExperimentConfig, row: str, target: str, seed: int, model: Path | None) -> dict:
    """Means over the target's held-out pairs, kept in `seed<n>/<target>/<row>.json`."""
    path = Path(config.run.folder) / f"seed{seed}" / target / f"{row.replace(' ', '-')}.json"
    if path.exists():
        return json.loads(path.read_text())
    fast = config.fast if row not in ("input", "regression") else None
    if row == "wiener":
        method = open_method("wiener", seed=seed, kernel_from=str(model), fast=fast)
    else:
        method = open_method("input" if model is None else str(model), seed=seed, fast=fast)
    test = Folder(Path(config.run.folder) / "domains" / target / "test")
    rows, _ = evaluate(method, paired_cases(test), find_protocol("rgb"), extra=("gmsd", *perceptual()))
    means = summary(rows)
    trained = model and (model.parent if model.name == "pipeline" else model) / "seconds.txt"
    found = {
        "target": target,
        "seed": seed,
        "row": row,
        **{name: means[name] for name in ("psnr", "gain", "ssim", "gmsd", "lpips", "seconds") if name in means},
        "parameters": parameters_in(model) if model and row != "wiener" else 0,
        "training seconds": float(trained.read_text()) if trained else 0.0,
    }
    with replacing(path) as part:
        part.write_text(json.dumps(found) + "\n")
    return found


def perceptual() -> tuple[str, ...]:
    """`("lpips",)` if its weights are available, otherwise `()`."""
    try:
        lpips(*torch.zeros(2, 1, 3, 64, 64))
    except ValueError:
        return ()
    return ("lpips",)


def parameters_in(model: Path) -> int:
    """How many numbers the weights in a model folder hold."""
    from safetensors import safe_open

    count = 0
    for path in model.rglob("*.safetensors") if model.name == "pipeline" else model.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            count += sum(torch.Size(weights.get_slice(name).get_shape()).numel() for name in weights.keys())
    return count


def write_results(rows: list[dict], folder: Path) -> None:
    """Write all figures to `results.json`, and to `table.md` a table of their means over the seeds for each target."""
    with replacing(folder / "results.json") as part:
        part.write_text(json.dumps(rows, indent=1) + "\n")
    columns = [name for name in ("psnr", "ssim", "gmsd", "lpips", "seconds", "parameters") if name in rows[0]]
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        lines += [f"\n| {target} | {' | '.join(columns)} | psnr of each seed |", "|---" * (len(columns) + 2) + "|"]
        for name in ROWS:
            mine = [row for row in rows if row["target"] == target and row["row"] == name]
            if mine:
                means = [sum(row[column] for row in mine) / len(mine) for column in columns]
                shown = [f"{value:,.0f}" if value > 1000 else f"{value:.4g}" for value in means]
                seeds = ", ".join(f"{row['psnr']:.2f}" for row in mine)
                lines.append(f"| {name} | {' | '.join(shown)} | {seeds} |")
    with replacing(folder / "table.md") as part:
        part.write_text("\n".join(lines).lstrip() + "\n")
