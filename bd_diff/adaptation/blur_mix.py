"""Estimates the mix of synthetic blurs that resembles a folder's photographs, to train on without sharp twins.

Black-box shift estimation (Lipton, Wang and Smola 2018): a classifier learns the blur families on synthetic
photographs; the shares in the folder are those that explain its mean answer, its known confusions counted in.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm import tqdm

from bd_diff.adaptation.domain_gap import middle, synthetic_pair
from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.synthesis import FAMILIES
from bd_diff.data.crops import PhotographSource, draw, seeded
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.data.pixels import luminance
from bd_diff.data.writing import replacing
from bd_diff.models.lag_maps import lag_maps
from bd_diff.models.model_folder import read_json
from bd_diff.reading.denoise import noise_level
from bd_diff.training.pipelines import load_pipeline

CURVE = "srgb"  # cameras average light
VARIATION = 0.8  # how far blur differs over half of the photographs, at most (see `bd_diff.blur.synthesis.Blur`)
# Quality of JPEG for half of the photographs: without it an adapted model takes JPEG's artefacts for detail. Blur
# families are told without JPEG, which is more accurate.
JPEG = 70
CAMERA = {"curve": CURVE, "variation": VARIATION, "jpeg": JPEG}  # as settings of `bd_diff.training.joint.JointConfig`
SMALLEST = 96  # pixels a side, below which a photograph is left out
MOST = 64  # photographs that are looked at
SUM_WEIGHT = 10.0  # how strictly the shares sum to one while they are fitted
KINDS = [family for family in FAMILIES if family not in ("delta", "box")]  # no blur, and one that no camera makes
RIDGE = 0.01  # of the kernel ridge regression, on a kernel that is 1 for equals


def fit_families(pipeline, photographs: list[Tensor], sharp: PhotographSource, noise: float) -> dict[str, float]:
    """Shares of the blur families that cameras make in blurry photographs, those above 1 %, together about one.

    photographs, sharp: uint8 or floats in [0, 1], `(3, H, W)`, of different scenes. noise: the largest standard
    deviation of the synthetic photographs' noise, on the scale of [0, 1].
    """
    seen = torch.stack([blur_features(pipeline, one) for one in photographs])
    return explain(seen, *known_families(pipeline, sharp, noise))


def known_families(
    pipeline, sharp: PhotographSource, noise: float, count: int = 120, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Features `(n, D)` of `count` synthetic photographs a family, and which of `KINDS` each is `(n,)`."""
    seen, kinds, camera = [], [], RandomCamera(noise, CURVE)
    # Families take turns, so that any half of the samples has all of them.
    for index in tqdm(range(count), desc="telling the blur", unit="round"):
        for number, family in enumerate(KINDS):
            generator = seeded(seed, index, number)
            one = sharp[draw(len(sharp), generator)]
            taken, _ = synthetic_pair(one, {family: 1.0}, camera, generator, VARIATION)
            seen.append(blur_features(pipeline, taken))
            kinds.append(number)
    return torch.stack(seen), torch.tensor(kinds)


def explain(seen: Tensor, known: Tensor, kinds: Tensor) -> dict[str, float]:
    """Shares of `KINDS` that explain features `(m, D)` of photographs, from features `(n, D)` of known kinds `(n,)`."""
    columns, half = one_hot(kinds).double(), len(known) // 2
    first, second = (known[:half], columns[:half]), (known[half:], columns[half:])
    answers = torch.cat([classify(*second, known[:half]), classify(*first, known[half:])])
    confusions = torch.stack([answers[kinds == number].mean(0) for number in range(len(KINDS))])
    answer = classify(known, columns, seen).mean(0)
    rows = np.vstack([confusions.T.numpy(), np.full(len(KINDS), SUM_WEIGHT)])
    shares, _ = nnls(rows, np.append(answer.numpy(), SUM_WEIGHT))
    shares /= shares.sum()
    return {family: round(float(share), 3) for family, share in zip(KINDS, shares, strict=True) if share > 0.01}


def classify(known: Tensor, columns: Tensor, seen: Tensor) -> Tensor:
    """Columns `(m, K)` of features `(m, D)` by Gaussian kernel ridge regression on `(n, K)` of known ones `(n, D)`."""
    centre, deviation, usual = known.mean(0), known.std(0) + 1e-6, columns.mean(0)
    known, seen = (known - centre) / deviation, (seen - centre) / deviation
    alike, near = ((-torch.cdist(one, known).square() / known.shape[1]).exp() for one in (known, seen))
    return near @ torch.linalg.solve(alike + RIDGE * torch.eye(len(known), dtype=alike.dtype), columns - usual) + usual


@torch.no_grad()
def blur_features(pipeline, image: Tensor) -> Tensor:
    """Features of the blur in a photograph's middle `(D,)`: blur tokens, correlations and spectrum of the gradients."""
    image = middle(image)
    tokens = pipeline.encode_image((image * 2 - 1).to(pipeline.device), fast=True).tokens
    return torch.cat([part.flatten().float().cpu() for part in (tokens, *lag_maps(luminance(image)))]).double()


def fit_noise(photographs: list[Tensor]) -> float:
    """The noise that one photograph in ten exceeds: standard deviation on the scale of [0, 1]."""
    return float(torch.cat([noise_level(luminance(middle(one))) for one in photographs]).quantile(0.9))


def synthesis_like(
    folder: Path,
    model: str,
    sharp: Callable[[], PhotographSource],
    families: dict[str, float],
    noise: float,
    kept: Path,
) -> dict[str, Any]:
    """What a training for the photographs of a folder should blur with, as settings of `JointConfig`.

    The families are those that the photographs are like, beside as many sharp ones as in `families`, which the model
    was trained on; the noise is the photographs', where that is more than the given one; the rest is `CAMERA`. Kept in
    the file `kept`, and read from there, without asking for the sharp ones, if it was found before. Photographs under
    `SMALLEST` pixels a side are left out; ValueError where none remains.
    """
    if kept.exists():
        return read_json(kept, "remove it to tell the blur again")
    paths = list_images(folder)
    read = (to_tensor(read_image(path)) for path in paths[:: -(-len(paths) // MOST)])
    # No more than the middles is looked at, and 64 photographs of 12 megapixels would be 9 GiB.
    photographs = [middle(one)[0].clone() for one in read if min(one.shape[1:]) >= SMALLEST]
    if not photographs:
        raise ValueError(f"{folder} has no photograph of {SMALLEST} pixels a side, so its blur cannot be told")
    noise = max(noise, fit_noise(photographs))
    fitted = some_sharp(fit_families(load_pipeline(model), photographs, sharp(), noise), families.get("delta", 0.0))
    found = {"families": fitted, "noise": noise, **CAMERA}
    with replacing(kept) as part:
        part.write_text(json.dumps(found) + "\n")
    return found


def some_sharp(families: dict[str, float], share: float) -> dict[str, float]:
    """Families with a share of none: from sharp photographs a model learns to leave alone what is sharp."""
    return {"delta": share} | {family: (1 - share) * part for family, part in families.items()}
