"""Adapts a model to a folder of blurry photographs without sharp twins: length, criterion, early stop, report."""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bd_diff.adaptation.blur_mix import synthesis_like
from bd_diff.adaptation.candidates import LENS, SAID, candidates, lens_of, with_lens
from bd_diff.adaptation.domain_gap import (
    CROP,
    STATISTICS,
    TRAINED_ON,
    as_reference,
    gaps,
    read_photographs_blur,
    reference_readings,
    synthetic_pair,
    total_gap,
)
from bd_diff.adaptation.judge import Judgement, judge, middle
from bd_diff.adaptation.lens import FEWEST
from bd_diff.adaptation.material import (
    SHORT,
    WHOLE,
    effort_of,
    folders_of,
    held_out_paths,
    held_out_photographs,
    hold_out,
    seen_photographs,
    sharp_photographs,
)
from bd_diff.data.claims import claim
from bd_diff.data.crops import seeded
from bd_diff.data.deep import DeepImage
from bd_diff.data.drawing import contact_sheet
from bd_diff.data.images import list_images, read_image, save_image, to_image, to_tensor
from bd_diff.data.writing import replacing, replacing_folder
from bd_diff.models.model_folder import is_adapter, read_json
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.training.checkpoints import begun, newest_checkpoint, recorded, step_of
from bd_diff.training.config import RunConfig
from bd_diff.training.joint import DataConfig, JointConfig, train_joint
from bd_diff.training.objective import JointObjective
from bd_diff.training.pipelines import load_pipeline, save_pipeline
from bd_diff.training.run_settings import keep_settings

CHECKS = 8  # in a whole adaptation
PATIENCE = 3  # checks without a better criterion after which it ends
JUDGES = 3  # every so many-th of the target's is held out
AGAIN = "adapt again into another folder"
# Share of blur by movement, below which the adapted model does not search for it. The search gains 0.2 to 0.7 dB where
# cameras moved and costs 0.3 dB where lenses were out of focus (assets/docs/adapting.md), so it pays from a fourth on.
STILL = 0.2


def adaptation_config(
    target: Path, model: Path, sharp: Path, out: Path, steps: int = WHOLE, seed: int = 2
) -> JointConfig:
    """The configuration `configs/bd_diff_tiny/adapt.yaml` for these folders and this model."""
    return JointConfig(
        run=RunConfig(
            folder=str(out),
            steps=steps,
            batch_size=4,
            seed=seed,
            resume=begun(out),
            validate_every=max(1, steps // CHECKS),
            ema_decay=0.98,
            warmup_steps=20,
            trackers=(),
        ),
        start_from=str(model),
        networks={},
        optimizer={"lr": 3e-4, "weight_decay": 1e-2, "betas": [0.9, 0.99]},
        # None of the tasks on the photographs themselves: they gained nothing (assets/docs/adapting.md).
        weights={"kernel": 0.5, "carry": 0.2, "deblur": 1.0, "transfer": 0.2},
        families=dict(TRAINED_ON),
        noise=4 / 255,
        data=DataConfig(sharp=str(sharp), target=str(target), target_exclude=str(out / "held_out.txt"), crop=CROP),
    )


def adapt(config: JointConfig) -> dict | None:
    """Adapt a model as `config` says, and return the report.

    Where the photographs share the kernel of a lens, and held-out ones are better with it
    (`bd_diff.adaptation.judge`), the model that knows it is in `run.folder/pipeline`, and nothing is trained. Otherwise
    the best model by `Criterion` and its reading of blur alone are judged; which is better is there, else the model one
    began with. The last one of training is in `run.folder/last`. Stopped by Ctrl-C it returns None; called again it
    continues, and after its end it returns the stored report. Raises ValueError for folders that cannot be used, and if
    `run.folder` is of another adaptation.
    """
    out = Path(config.run.folder)
    claim(out)
    keep_settings(out, adaptation_settings(config))
    if (out / "report.json").exists():
        remove_bests(out)  # a kill may have come before that
        return read_json(out / "report.json", AGAIN)
    target, sharp_folder, model = folders_of(config)
    effort = effort_of(config)
    held_out = {
        "held_out.txt": hold_out(target, config.data.crop, effort.held_out, JUDGES),
        "held_out_sharp.txt": hold_out(sharp_folder, config.data.crop, effort.held_out),
    }
    for listed, names in held_out.items():
        with replacing(out / listed) as part:
            part.write_text("".join(f"{name}\n" for name in names))
    config = replace(config, data=replace(config.data, exclude=str(out / "held_out_sharp.txt")))
    optics, judgement = judge_lens(config)
    if judgement and judgement.kept:
        side_by_side(config, load_pipeline(str(model)), load_pipeline(str(out / "pipeline")))
        report = {"steps": 0, "rehearsal": config.run.steps < SHORT, "judged": judgement.figures()}
        return finish(config, report | {"verdict": judgement.sentence()} | optics)
    sharp, kept = partial(sharp_photographs, config), out / "blur.json"
    like = synthesis_like(target, str(model), sharp, config.families, config.noise, kept, effort.rounds)
    config = replace(config, **like)
    criteria: list[Criterion] = []

    def watch(pipeline: BDDiffPipeline, objective: JointObjective) -> Criterion:
        pipeline.register_to_config(search=pipeline.config.search and moving(config.families))
        criteria.append(Criterion(pipeline, objective, config, out))
        return criteria[0]

    unseen = replace(config.data, target=None, target_exclude=None)  # no task is on the photographs themselves
    if not train_joint(replace(config, data=unseen), watch, stop=lambda: criteria[0].enough()):
        return None
    history, best = criteria[0].history, criteria[0].best()
    with replacing_folder(out / "last") as folder:
        shutil.copytree(out / "pipeline", folder, dirs_exist_ok=True)
    found = candidates(model, best if criteria[0].best_step(max(history)) else None)
    judgement = judge(load_pipeline(str(model)), found, held_out_photographs(config)).beside(judgement)
    if judgement.kept:
        save_pipeline(found[judgement.kept], out / "pipeline")
    else:
        with replacing_folder(out / "pipeline") as folder:
            shutil.copytree(model, folder, dirs_exist_ok=True)
    camera = criteria[0].objective.camera
    fitted = {"families": config.families, "camera": camera, "variation": config.variation}
    return finish(config, make_report(config, {"before": {}, "after": fitted}, history, judgement, out) | optics)


def finish(config: JointConfig, report: dict) -> dict:
    """Write the report, which ends the adaptation; returns it with advice."""
    out = Path(config.run.folder)
    report |= {"advice": advice(report)}
    with replacing(out / "report.json") as part:
        part.write_text(json.dumps(report, indent=1) + "\n")
    remove_bests(out)
    return report


def judge_lens(config: JointConfig) -> tuple[dict[str, Any], Judgement | None]:
    """What the target's photographs that are not held out say of a shared kernel, for the report, and where they share
    one the judgement of the held-out ones; the model that knows a kernel that is kept is saved.
    """
    model = str(folders_of(config)[2])
    begun, seen = load_pipeline(model), seen_photographs(config)
    if is_adapter(Path(model)) or begun.blur_decoder is None or len(seen) < FEWEST:
        return {"lens": None}, None
    lens = lens_of(begun, seen, sharp_photographs(config))
    told = {"lens": lens.figures()}
    if lens.why_not:
        return told, None
    found = with_lens(load_pipeline(model), lens.kernel)
    judgement = judge(begun, {LENS: found}, held_out_photographs(config), by_kernel=True)
    if judgement.kept:
        save_pipeline(found, Path(config.run.folder) / "pipeline")
    return told, judgement


def remove_bests(out: Path, needed: Collection[int] = ()) -> None:
    """Remove the folders `best-STEP` of models, except those of the `needed` steps."""
    for path in out.glob("best-*"):
        if path.name not in {f"best-{step}" for step in needed}:
            shutil.rmtree(path)


def adaptation_settings(config: JointConfig) -> dict[str, Any]:
    """The settings that tell one adaptation from another, by their names on the command line."""
    folders = folders_of(config)
    return {
        **{f"--{name}": str(path.resolve()) for name, path in zip(("target", "sharp", "model"), folders, strict=True)},
        "photographs": len(list_images(folders[0])),
        "--steps": config.run.steps,
        "--seed": config.run.seed,
    }


def moving(families: Mapping[str, float]) -> bool:
    """Whether these shares of blur families include camera motion, so that the search for shakes is worth its time."""
    return families.get("line", 0.0) + families.get("shake", 0.0) > STILL


class Criterion:
    """What the best model is chosen by; lower is better.

    The mean absolute error, in levels of 255, after deblurring synthetic photographs: sharp images that are never
    trained on, blurred like the folder's photographs (`bd_diff.adaptation.blur_mix`).

    Called at every check with the averaged weights in place. The best model is kept in `out/best-STEP`, with those that
    were the best when a checkpoint was made, and all figures in `out/history.json`.
    """

    def __init__(self, pipeline, objective: JointObjective, config: JointConfig, out: Path):
        self.pipeline, self.objective, self.out = pipeline, objective, out
        pipeline.set_progress_bar_config(disable=True)
        self.earliest = config.run.steps / 2  # learning begins with a step back, from which it must have time to return
        self.pairs = [
            synthetic_pair(sharp, config.families, objective.camera, seeded(2, index, part), config.variation)
            for index, sharp in enumerate(sharp_photographs(config, held_out=True))
            for part in range(2)
        ]
        resumed = newest_checkpoint(out)
        self.history: dict[int, float] = {}
        if resumed and (out / "history.json").exists():
            stored = read_json(out / "history.json", AGAIN)
            self.history = {int(step): value for step, value in stored.items() if int(step) <= step_of(resumed)}
        if not self.history:
            self(0)

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        self.objective.eval()
        total = 0.0
        for blurry, sharp in self.pairs:
            generator = torch.Generator().manual_seed(0)
            result = self.pipeline(blurry, fast=True, generator=generator, output_type="pt").images[0].cpu()
            total += 255 * float((result - sharp).abs().mean()) / len(self.pairs)
        best = min(self.history.values(), default=float("inf"))
        self.history[step] = total
        if total < best:
            save_pipeline(self.pipeline, self.best())
        with replacing(self.out / "history.json") as part:
            part.write_text(json.dumps(self.history) + "\n")
        remove_bests(self.out, {self.best_step(until) for until in (*map(step_of, recorded(self.out)), step)})
        self.objective.train()
        print(
            f"check at step {step}: criterion {total:.4f}" + (", the best so far" if total < best else ""), flush=True
        )
        return {"criterion": total}

    def best_step(self, until: int) -> int:
        """The step of the best model among those up to the step `until`."""
        return min((step for step in self.history if step <= until), key=lambda step: self.history[step])

    def best(self) -> Path:
        """The folder of the best model."""
        return self.out / f"best-{self.best_step(max(self.history))}"

    def enough(self) -> bool:
        """Whether to stop early: half the steps are done, and the last `PATIENCE` checks brought no improvement."""
        values = [value for _, value in sorted(self.history.items())]
        return (
            max(self.history) >= self.earliest
            and len(values) > PATIENCE
            and min(values[-PATIENCE:]) >= min(values[:-PATIENCE])
        )


@torch.no_grad()
def make_report(
    config: JointConfig,
    trained_on: Mapping[str, Mapping[str, Any]],
    history: dict[int, float],
    judgement: Judgement,
    out: Path,
) -> dict:
    """The report: what the photographs say of the candidates; the domain gap to the synthetic photographs trained on,
    before and after; the criterion.
    """
    target, _, model = folders_of(config)
    effort = effort_of(config)
    judged = list_images(target)[: effort.judged]
    sharp = sharp_photographs(config, held_out=True)
    found, sizes = {}, {}
    pipelines: dict[str, Any] = {
        name: load_pipeline(str(folder)) for name, folder in (("before", model), ("after", out / "pipeline"))
    }
    for name, pipeline in pipelines.items():
        readings = read_photographs_blur(pipeline, (to_tensor(read_image(path)) for path in judged))
        found[name] = gaps(
            readings, as_reference(reference_readings(pipeline, sharp, effort.reference, **trained_on[name]))
        )
        sizes[name] = float(readings["size"].mean())
    side_by_side(config, **pipelines)
    best = min(history, key=lambda step: history[step])
    return {
        "steps": max(history),
        "rehearsal": config.run.steps < SHORT,
        "best_step": best,
        "judged": judgement.figures(),
        "verdict": judgement.sentence(),
        "stopped_early": max(history) < config.run.steps,
        "criterion": {"before": history[min(history)], "after": history[best]},
        "gap": {name: total_gap(values) for name, values in found.items()},
        "gaps": found,
        "blur": config.families,
        "moved": moving(config.families),
        "kernel_size": sizes,
    }


@torch.no_grad()
def side_by_side(config: JointConfig, before: BDDiffPipeline, after: BDDiffPipeline) -> None:
    """Write `samples.png`: the middles of some held-out photographs, and what both models make of them."""
    rows: list[list[tuple[str, Image.Image | DeepImage]]] = []
    for path in held_out_paths(config)[: min(4, effort_of(config).held_out)]:
        photograph = middle(to_tensor(read_image(path))[None])
        rows.append([("photograph", to_image(photograph[0]))])
        for name, pipeline in (("before", before), ("after", after)):
            pipeline.set_progress_bar_config(disable=True)
            generator = torch.Generator().manual_seed(0)
            made: Any = pipeline(photograph, generator=generator, output_type="pt")
            rows[-1].append((name, to_image(made.images[0])))
    save_image(contact_sheet(rows), Path(config.run.folder) / "samples.png")


def advice(report: dict) -> list[str]:
    """Sentences for the user: what the figures of the adaptation's report mean, and what to do next."""
    said = []
    if report.get("rehearsal"):
        said.append(
            f"This was a rehearsal, with hardly anything to tell the blur and to judge by: with {SHORT} steps or more "
            "the figures mean something."
        )
    said.append(report["verdict"])
    if report["judged"]["kept"] == LENS:
        return [*said, SAID[LENS]]
    if report.get("lens") and report["lens"]["why_not"]:
        said.append(f"No kernel of a lens was offered: {report['lens']['why_not']}.")
    if report["judged"]["kept"] is None:
        return [*said, "The last model of the training is in the folder 'last', to be judged by eye."]
    said.append(SAID[report["judged"]["kept"]])
    if report["kernel_size"]["after"] < 0.5 * report["kernel_size"]["before"]:
        said.append("The adapted model sees less than half the blur it saw: look at samples.png before you use it.")
    if not report["moved"]:
        said.append(
            "Hardly anything moved in these photographs: the adapted model does not search for shakes, as with --fast."
        )
    if report["gap"]["after"] < report["gap"]["before"] - 0.02:
        said.append("The domain gap shrank.")
        return said
    largest = max(report["gaps"]["after"], key=report["gaps"]["after"].get)
    said.append(f"The domain gap did not shrink; most of it is in {largest} ({STATISTICS[largest]}).")
    remedies = {
        "noise": "The photographs' noise is not the white noise that adapting learns: denoise first.",
        "saturation": "Clipped light is not learnt by adapting: leave out photographs with many blown lamps.",
    }
    said.append(
        remedies.get(
            largest, "Give it more photographs (50 or more), sharp ones of the same kind (--sharp), or --steps."
        )
    )
    return said
