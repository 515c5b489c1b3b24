"""Validation of a baseline during training: figures on held-out photographs, pictures, and the best model."""

import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from diffusers import ModelMixin
from torch import Tensor

from bd_diff.blur.kernels import SIZE, blur, box
from bd_diff.data.folders import Folder
from bd_diff.data.pairs import Pair, as_pair
from bd_diff.data.photographs import Photographs
from bd_diff.data.writing import flush, replacing, replacing_folder
from bd_diff.evaluation.evaluate import centre_window, eight_bit, family_pairs
from bd_diff.evaluation.metrics import psnr, ssim
from bd_diff.training.pairs import DataConfig

Cases = Mapping[str, tuple[Tensor, Tensor]]  # name: blurry and sharp, both (N, 3, H, W) in [0, 1] at 8 bit


def box_cases(photographs: Sequence[Tensor], levels: Sequence[int], size: int) -> Cases:
    """X-DECODE's test: the centre of each photograph, `size` pixels a side, under a box of each level.

    Photographs are uint8 `(3, H, W)`, no side below `size`; the pixels around the crop are blurred into it.
    """
    around = torch.stack([centre_window(image / 255, size, SIZE // 2) for image in photographs])
    sharp = eight_bit(around[..., SIZE // 2 : -(SIZE // 2), SIZE // 2 : -(SIZE // 2)])
    widths = {level: torch.full((len(around),), float(level)) for level in levels}
    return {f"{level}": (eight_bit(blur(around, box(width), mode="valid")), sharp) for level, width in widths.items()}


def family_cases(photographs: Sequence[Tensor], size: int) -> Cases:
    """The centres of photographs under the blur families of `evaluation.evaluate.family_pairs`."""
    return grouped((pair.family, pair.blurry, pair.sharp) for pair in family_pairs(photographs, size=size))


def grouped(pairs: Iterable[tuple[str, Tensor, Tensor]]) -> Cases:
    """Pairs `(name, blurry (3, H, W), sharp (3, H, W))`, stacked by name."""
    cases: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for name, blurry, sharp in pairs:
        cases.setdefault(name, ([], []))
        cases[name][0].append(blurry)
        cases[name][1].append(sharp)
    return {name: (torch.stack(blurry), torch.stack(sharp)) for name, (blurry, sharp) in cases.items()}


def centre_and_margin(image: Tensor, size: int) -> Tensor:
    """The centre of an image `(3, H, W)`: all that `centre_window` takes of it at this size and a margin of SIZE // 2.

    It is a copy of at most `size` + 2 (SIZE // 2) pixels a side, so that the whole image need not stay in memory.
    """
    height, width = (min(side, size + 2 * (SIZE // 2)) for side in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width].clone()


def held_out_photographs(data: DataConfig) -> list[Tensor]:
    """The centres (`centre_and_margin`) of the photographs that `data.validation` lists, as uint8, read one by one.

    Photographs below `data.validation_size` pixels a side are left out. Raises ValueError if all are.
    """
    size, photographs = data.validation_size, Photographs(data.folder, only=data.validation, memory=0)
    large = [centre_and_margin(image, size) for image in photographs if min(image.shape[1:]) >= size]
    if not large:
        raise ValueError(f"{data.validation} lists no photograph of at least {size} pixels a side")
    return large


def held_out_pairs(data: DataConfig, most: int = 32) -> list[Pair]:
    """The centres (`centre_and_margin`) of up to `most` pairs, evenly from the split for validation.

    Pairs below `data.validation_size` pixels a side are left out. Raises ValueError where the folder holds no pairs, or
    none is large enough.
    """
    assert data.validation is not None  # the caller has looked
    folder = Folder(data.validation, split=data.validation_split)
    if folder.kind != "paired":
        raise ValueError(f"{data.validation} holds no pairs of blurry and sharp images, so it cannot be validated on")
    pairs = (as_pair(folder[index]) for index in range(0, len(folder), -(-len(folder) // most)))
    size = data.validation_size
    large = [
        replace(pair, blurry=centre_and_margin(pair.blurry, size), sharp=centre_and_margin(pair.sharp, size))
        for pair in pairs
        if min(pair.sharp.shape[1:]) >= size
    ]
    if not large:
        raise ValueError(f"no pair in {data.validation} has {data.validation_size} pixels a side")
    return large


def validation_cases(data: DataConfig) -> Cases:
    """The validation cases of a configuration; empty where it names none.

    Pairs are cut to their centres and grouped as their folder is; photographs, and the sharp sides of pairs whose own
    blur is not wanted, are blurred: by boxes of `data.levels`, or as in the project's table.
    """
    if data.validation is None:
        return {}
    size = data.validation_size
    if not Path(data.validation).is_dir():
        photographs = held_out_photographs(data)
    elif data.own_blur:
        return grouped(
            (pair.group, centre_window(pair.blurry, size, 0), centre_window(pair.sharp, size, 0))
            for pair in held_out_pairs(data)
        )
    else:
        photographs = [(pair.sharp * 255).round().byte() for pair in held_out_pairs(data)]
    return box_cases(photographs, data.levels, size) if data.levels else family_cases(photographs, size)


@torch.no_grad()
def measure(
    restore: Callable[[Tensor], Tensor], cases: Cases, batch: int = 4
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Mean PSNR (dB) and SSIM per case, as `psnr/<case>` and `ssim/<case>`, and the restored images of each."""
    figures, pictures = {}, {}
    for name, (blurry, sharp) in cases.items():
        restored = torch.cat([eight_bit(restore(part).cpu()) for part in blurry.split(batch)])
        figures[f"psnr/{name}"] = psnr(restored, sharp).mean().item()
        figures[f"ssim/{name}"] = ssim(restored, sharp).mean().item()
        pictures[name] = restored
    return figures, pictures


def save_whole(network: ModelMixin, folder: Path) -> None:
    """Save a network into an existing folder; the weights appear last, and complete."""
    with replacing_folder(folder / "model") as temporary:
        network.save_pretrained(temporary)
    for path in sorted((folder / "model").iterdir()):  # config.json comes before the weights
        os.replace(path, folder / path.name)
    (folder / "model").rmdir()
    flush(folder)


class Validation:
    """`validate(step)` for `fit`: the figures of `measure` and, as `psnr`, the mean over the blurred cases.

    Case `sharp` is left out of that mean: an image passed on as it is has 100 dB there, and would outweigh all others.
    The model with the best mean is in `folder/best`, beside `best.json` with its step and figures; a resumed training
    reads that file. The first `shown` images of every case go to the trackers: blurry, restored and sharp, from left to
    right.
    """

    def __init__(
        self,
        network: ModelMixin,
        restore: Callable[[Tensor], Tensor],
        cases: Cases,
        folder: str | Path,
        accelerator: Accelerator,
        resume: bool = False,
        shown: int = 4,
    ):
        self.network, self.restore, self.cases, self.shown = network, restore, cases, shown
        self.folder, self.accelerator = Path(folder), accelerator
        self.watchers: list[Callable[[float], None]] = []  # each is told the mean PSNR
        if not resume and accelerator.is_main_process:
            (self.folder / "best.json").unlink(missing_ok=True)  # of a training that never came to a checkpoint

    def __call__(self, step: int) -> dict[str, float]:
        self.network.eval()
        figures, pictures = measure(self.restore, self.cases)
        self.network.train()
        figures["psnr"] = statistics.mean(figures[f"psnr/{name}"] for name in self.cases if name != "sharp")
        self.show(pictures, step)
        if figures["psnr"] > self.best():
            self.keep(figures, step)
        for watch in self.watchers:
            watch(figures["psnr"])
        return figures

    def show(self, pictures: Mapping[str, Tensor], step: int) -> None:
        """Send strips of images to TensorBoard or W&B, if one of them is on."""
        arrays = {}
        for name, (blurry, sharp) in self.cases.items():
            strip = torch.cat([images[: self.shown] for images in (blurry, pictures[name], sharp)], -1)
            arrays[f"validation/{name}"] = (strip.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        for tracker in self.accelerator.trackers:
            order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images(arrays, step=step, **order)

    def best(self) -> float:
        """Mean PSNR of the best model so far, minus infinity before the first."""
        record = self.folder / "best.json"
        return json.loads(record.read_text())["psnr"] if record.exists() else -float("inf")

    def keep(self, figures: Mapping[str, float], step: int) -> None:
        """Save the model, then its record: after a kill at any moment, `best.json` describes a model that was saved."""
        with replacing_folder(self.folder / "best") as temporary:
            self.network.save_pretrained(temporary)
        with replacing(self.folder / "best.json") as part:
            part.write_text(json.dumps({"step": step, **figures}, indent=2))


class Plateau:
    """A learning rate that falls when the validation does not improve: `fit(..., rate=plateau)`.

    The share of the rate is multiplied by `factor` after more than `patience` validations without a new best figure,
    down to `floor`. Pass it to `fit` among `others`, too, so that a resumed training continues it.
    """

    def __init__(self, factor: float = 0.1, patience: float = 25, floor: float = 0.1):
        self.factor, self.patience, self.floor = factor, patience, floor
        self.share, self.best, self.waited = 1.0, -float("inf"), 0.0

    def __call__(self, step: int) -> float:
        """The share of the learning rate; all processes take that of the first, which alone validates."""
        return broadcast(torch.tensor(self.share, device=PartialState().device)).item()

    def observe(self, figure: float) -> None:
        """Take note of a validation's figure; higher is better."""
        self.waited = 0 if figure > self.best else self.waited + 1
        self.best = max(self.best, figure)
        if self.waited > self.patience:
            self.share, self.waited = max(self.share * self.factor, self.floor), 0

    def state_dict(self) -> dict[str, float]:
        return {"share": self.share, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.share, self.best, self.waited = state["share"], state["best"], state["waited"]
