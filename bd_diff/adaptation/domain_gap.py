"""How far the blur of a folder of photographs is from the blur that a model was trained on, in figures and in words.

The model reads every photograph. Its readings are compared with reference readings, of sharp photographs blurred
synthetically, which are stored beside the model in `REFERENCE`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.stats import wasserstein_distance
from torch import Generator, Tensor

from bd_diff.adaptation.lens import FEWEST, MOST, Lens, evenly, find_lens, mean_reading
from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import SIZE, shape_of
from bd_diff.blur.synthesis import draw_fields
from bd_diff.data.crops import PhotographSource, draw, seeded
from bd_diff.data.noise import noise_level
from bd_diff.data.pixels import as_floats, luminance
from bd_diff.data.writing import replacing
from bd_diff.evaluation.protocols import eight_bit
from bd_diff.reading.confidence import distances
from bd_diff.reading.verdict import extents

REFERENCE = "blur_statistics.safetensors"
WINDOW = 256  # pixels a side, at most, that a photograph is read from: its middle
CLIPPED = 0.98  # display values from here on count as saturated (as in `bd_diff.blur.camera`)
# What the shipped model was trained on last, and by what camera.
TRAINED_ON = {"delta": 0.12, "gaussian": 0.3, "line": 0.18, "shake": 0.24, "disc": 0.16}
CAMERA = RandomCamera(noise=0.032, curve="srgb", curve_share=0.4, jpeg=70, jpeg_share=0.25, noise_skew=3.0)
FEW = 8  # photographs below which a gap says little
CROP = 128  # pixels a side that the restorer is adapted on; photographs that adapt, or tell of a lens, are as large

Readings = dict[str, Tensor]  # by statistic `(n,)`; `tokens` `(n, D)`; of photographs `kernels` `(n, k, k)`, too

STATISTICS = {  # what each is, as a reader of the report needs it
    "size": "kernel's size: standard deviation in pixels",
    "spread": "pixels that the kernel is spread over",
    "across": "main direction, 1 across to -1 along the image's height, 0 without one",
    "slant": "main direction, 1 rising to -1 falling, 0 without one",
    "noise": "standard deviation of the noise, on the scale of 0 to 255",
    "saturation": "share of clipped pixels, in percent",
    "tokens": "blur tokens, all together",
}


@torch.no_grad()
def read_photographs_blur(pipeline, images: Iterable[Tensor]) -> Readings:
    """The statistics of photographs `(3, H, W)`, uint8 or floats in [0, 1], of any sizes."""
    rows = [read_one(pipeline, image) for image in images]
    return {name: torch.stack([row[name] for row in rows]) for name in (*STATISTICS, "kernels")}


def middle(image: Tensor) -> Tensor:
    """The centre `(1, 3, h, w)` in [0, 1] of a photograph `(3, H, W)`, no side above `WINDOW` pixels."""
    image = as_floats(image)[None]
    height, width = (min(side, WINDOW) for side in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


def read_one(pipeline, image: Tensor) -> dict[str, Tensor]:
    """The statistics of the centre of one photograph."""
    image = middle(image)
    reading = pipeline.encode_image((image * 2 - 1).to(pipeline.device), fast=True)
    size, across, slant = shape_of(reading.kernels[0].float().cpu())
    return {
        "size": size,
        "spread": 1 / reading.kernels[0].float().cpu().square().sum().clamp_min(1e-6),
        "across": across,
        "slant": slant,
        "noise": 255 * noise_level(luminance(image))[0],
        "saturation": 100 * (image.amax(1) >= CLIPPED).float().mean(),
        "tokens": reading.tokens[0].float().cpu().flatten(),
        "kernels": reading.kernels[0].float().cpu(),
    }


def reference_readings(
    pipeline,
    photographs: PhotographSource,
    count: int = 96,
    families: Mapping[str, float] = TRAINED_ON,
    camera: RandomCamera = CAMERA,
    variation: float = 0.0,
    seed: int = 0,
    progress: Callable = lambda items: items,
) -> Readings:
    """Readings of `count` synthetic photographs: crops of sharp ones `(3, H, W)`, blurred as training blurs them."""

    def synthetic() -> Iterable[Tensor]:
        for index in progress(range(count)):
            generator = seeded(seed, index)
            sharp = photographs[draw(len(photographs), generator)]
            yield synthetic_pair(sharp, families, camera, generator, variation)[0]

    return read_photographs_blur(pipeline, synthetic())


def synthetic_pair(
    sharp: Tensor, families: Mapping[str, float], camera: RandomCamera, generator: Generator, variation: float = 0.0
) -> tuple[Tensor, Tensor]:
    """A random window of a sharp photograph `(3, H, W)`: blurred and taken by the camera at 8 bit, and sharp.

    Both are in [0, 1], at most `WINDOW` pixels a side, and SIZE - 1 pixels smaller than the window that they were cut
    from. variation: see `bd_diff.blur.synthesis.draw_fields`.
    """
    sharp = as_floats(sharp)
    high, wide = (min(side, WINDOW + SIZE - 1) for side in sharp.shape[-2:])
    top, left = draw(sharp.shape[-2] - high + 1, generator), draw(sharp.shape[-1] - wide + 1, generator)
    window, inside = sharp[:, top : top + high, left : left + wide], slice(SIZE // 2, -(SIZE // 2))
    fields = draw_fields(1, generator, families, variation)
    return eight_bit(camera.capture(window[None], fields, generator)[0]), window[:, inside, inside]


def write_reference(readings: Readings, folder: str | Path) -> None:
    """Store reference readings beside a model: all statistics, but of the tokens only mean and deviation."""
    with replacing(Path(folder) / REFERENCE) as part:
        save_file({name: values.float().contiguous() for name, values in as_reference(readings).items()}, part)


def read_reference(folder: str | Path) -> Readings:
    """The readings that `write_reference` stored. Raises ValueError if they are missing or damaged."""
    path = Path(folder) / REFERENCE
    if not path.exists():
        raise ValueError(f"{folder} has no {REFERENCE}; make it with bd-diff domain --reference FOLDER of sharp images")
    try:
        readings = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    for name in (*(name for name in STATISTICS if name != "tokens"), "tokens_mean", "tokens_deviation"):
        if name not in readings or readings[name].ndim != 1 or not readings[name].is_floating_point():
            raise ValueError(f"{path} is damaged: it has no {name}, a list of numbers; make it again by --reference")
        if not len(readings[name]) or not readings[name].isfinite().all():
            raise ValueError(f"{path} is damaged: its {name} holds NaN or nothing; make it again by --reference")
    return readings


def as_reference(readings: Readings) -> Readings:
    """Readings in the form that `read_reference` gives."""
    tokens = {"tokens_mean": readings["tokens"].mean(0), "tokens_deviation": readings["tokens"].std(0)}
    return {name: values for name, values in readings.items() if name not in ("tokens", "kernels")} | tokens


def gaps(readings: Readings, reference: Readings) -> dict[str, float]:
    """By statistic, the distance of readings from the reference, in standard deviations of the reference.

    It is the Wasserstein distance of the two distributions; for the tokens, the root mean square over their channels of
    the shift of the mean. The distance that as many photographs of the reference itself show by chance is subtracted.
    """
    found, generator, count = {}, seeded(0), len(readings["size"])
    for name in STATISTICS:
        if name == "tokens":
            shift = (readings["tokens"].mean(0) - reference["tokens_mean"]) / (reference["tokens_deviation"] + 1e-4)
            by_chance = 1 / len(readings["tokens"]) + 1 / len(reference["size"])
            found[name] = math.sqrt(max(0.0, float(shift.square().mean()) - by_chance))
        else:
            expected = reference[name].tolist()
            samples = reference[name][torch.randint(len(expected), (32, count), generator=generator)].tolist()
            by_chance = sum(wasserstein_distance(sample, expected) for sample in samples) / len(samples)
            distance = wasserstein_distance(readings[name].tolist(), expected) - by_chance
            found[name] = max(0.0, float(distance)) / max(float(reference[name].std()), FLOORS.get(name, 1e-3))
    return found


# Differences smaller than this do not matter, whatever the reference (ours): a share of a grey level, of the pixels.
FLOORS = {"noise": 0.5, "saturation": 1.0}


def total_gap(found: dict[str, float]) -> float:
    """The mean of all gaps, each counted up to 3 standard deviations."""
    return sum(min(value, 3.0) for value in found.values()) / len(found)


NEAR, FAR = 0.15, 0.25  # (ours) of the total gap: the sources of training stay below the first
WIDE, OFTEN = SIZE - 4, 0.25  # pixels that blur reaches, and in what share of the photographs it is too wide (ours)
HARDLY_BLURRED = 0.6  # pixels: mean size of kernels below which photographs count as sharp (ours)
MISREAD = 0.002  # distance of a lens's kernel to the mean reading, from which knowing it gains (ours, on made lenses)


def lens_among(readings: Readings, photographs: list[Tensor], sharp: PhotographSource) -> Lens | None:
    """The kernel that photographs `(1, 3, H, W)` in [0, 1] of these readings share, as `bd_diff.adaptation.lens` tells
    it; None where they are too few or hardly blurred.
    """
    large = [index for index, one in enumerate(photographs) if min(one.shape[-2:]) >= CROP]
    if len(large) < FEWEST or float(readings["size"].mean()) < HARDLY_BLURRED:
        return None
    chosen = evenly(large, MOST)
    return find_lens([photographs[index] for index in chosen], readings["kernels"][chosen], sharp)


def misread(lens: Lens | None, readings: Readings) -> float:
    """How far the kernel of a lens is from what is read in its photographs, 0 where they share none: what adapting can
    gain.
    """
    if lens is None or lens.why_not:
        return 0.0
    return float(distances(lens.kernel, mean_reading(readings["kernels"])))


def verdict(readings: Readings, reference: Readings, lens: Lens | None = None) -> str:
    """Sentences that say whether adapting is worth it, and why; `lens` as `lens_among` gives it."""
    found = gaps(readings, reference)
    gap, count = total_gap(found), len(readings["size"])
    largest = sorted(found, key=lambda name: found[name], reverse=True)[:2]
    why = " and ".join(f"{name} ({direction(name, readings, reference)})" for name in largest)
    if float(readings["size"].mean()) < HARDLY_BLURRED:
        text = f"Gap {gap:.2f}: the model sees hardly any blur here; there is nothing to adapt to."
    else:
        unlike = f"unlike what the model was trained on, most in {why}"
        likeness = "like what the model was trained on" if gap < NEAR else f"somewhat {unlike}" if gap < FAR else unlike
        text = f"Gap {gap:.2f}: {likeness}; {prospect(gap, readings, lens)}"
    wide = sum(max(extents(kernel)) >= WIDE for kernel in readings["kernels"])
    if wide > OFTEN * count:
        text += (
            f" In {wide} of {count} photographs blur reaches {WIDE} pixels, about as far as the model reads at one "
            "scale; adapting does not change that."
        )
    if found["noise"] > 3 and readings["noise"].mean() > reference["noise"].mean():
        text += " The noise alone is far beyond the training's; denoise first, or train with more noise (noise=...)."
    return text + (f" ({count} photographs are few to judge by.)" if count < FEW else "")


def prospect(gap: float, readings: Readings, lens: Lens | None) -> str:
    """What adapting is likely to gain, in words."""
    if lens is not None and not lens.why_not:
        alike = "all photographs are blurred about alike, as by one lens, and together they tell"
        if misread(lens, readings) > MISREAD:
            return f"{alike} another kernel than the model reads in each: adapting will likely gain."
        return (
            f"{alike} about the kernel that the model reads in each without the search: --fast may be better than the "
            "default, and adapting, which trains then, may gain."
        )
    if gap < NEAR:
        return "adapting will change little."
    if lens is not None:
        return (
            "the blur differs from photograph to photograph, so that they tell no kernel together: adapting trains, "
            "which gains less often, and keeps the model as it is where unseen photographs do not gain."
        )
    if gap < FAR:
        return "adapting may help, try it."
    return "adapting may help, and where unseen photographs do not gain it keeps the model as it is."


def direction(name: str, readings: Readings, reference: Readings) -> str:
    """The mean of a statistic here and in the reference, in words."""
    if name == "tokens":
        return "all of the reading differs"
    here, there = float(readings[name].mean()), float(reference[name].mean())
    return f"{here:.2f} here, {there:.2f} in training"
