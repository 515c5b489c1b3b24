"""Estimates the mix of synthetic blurs that resembles a folder's photographs, to train on without sharp twins.

Black-box shift estimation (Lipton, Wang and Smola 2018): a classifier learns the blur families on synthetic
photographs, the source. The shares in the folder, the target, are those that explain the classifier's mean answer,
given how often it confuses one family with another.
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

from bd_diff.adaptation.domain_gap import middle, synthetic_pair
from bd_diff.blur.camera import RandomCamera
from bd_diff.data.crops import PhotographSource, draw, seeded
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.data.noise import noise_level
from bd_diff.data.pixels import luminance
from bd_diff.data.progress import progress
from bd_diff.data.writing import replacing
from bd_diff.models.lag_maps import lag_maps
from bd_diff.models.model_folder import read_json
from bd_diff.training.pipelines import load_pipeline

CURVE = "srgb"  # cameras average light
VARIATION = 0.8  # how far blur differs over half of the photographs, at most (see `bd_diff.blur.synthesis.Blur`)
# Quality of JPEG for half of the photographs: without it an adapted model takes JPEG's artefacts for detail. Blur
# families are told without JPEG, which is more accurate.
JPEG = 70
CAMERA = {"curve": CURVE, "variation": VARIATION, "jpeg": JPEG}  # as settings of `bd_diff.training.joint.JointConfig`
SMALLEST = 96  # pixels a side, below which a photograph is left out
ROUNDS = 120  # synthetic photographs of each family that the families are told by
MOST = 64  # photographs that are looked at
SUM_WEIGHT = 10.0  # how strictly the shares sum to one while they are fitted
KINDS = ("gaussian", "line", "shake", "disc")  # the families that are told apart
RIDGE = 0.01  # of the kernel ridge regression, on a kernel that is 1 for equals


def fit_families(
    pipeline, photographs: list[Tensor], sharp: PhotographSource, noise: float, rounds: int = ROUNDS
) -> dict[str, float]:
    """Shares of the blur families that cameras make in blurry photographs.

    Shares above 1 % are returned; they sum to about one. photographs, sharp: uint8 or floats in [0, 1], `(3, H, W)`, of
    different scenes. noise: the largest standard deviation of the synthetic photographs' noise, on the scale of [0, 1].
    """
    target = torch.stack([blur_features(pipeline, one) for one in photographs])
    return explain(target, *source_features(pipeline, sharp, noise, rounds))


def source_features(
    pipeline, sharp: PhotographSource, noise: float, count: int = ROUNDS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Features `(n, D)` of synthetic photographs, `count` per family, and the index in `KINDS` of each, `(n,)`."""
    features, kinds, camera = [], [], RandomCamera(noise, CURVE)
    # Families take turns, so that any half of the samples has all of them.
    for index in progress(range(count), desc="estimating the blur", unit="round"):
        for number, family in enumerate(KINDS):
            generator = seeded(seed, index, number)
            one = sharp[draw(len(sharp), generator)]
            taken, _ = synthetic_pair(one, {family: 1.0}, camera, generator, VARIATION)
            features.append(blur_features(pipeline, taken))
            kinds.append(number)
    return torch.stack(features), torch.tensor(kinds)


def explain(target: Tensor, source: Tensor, kinds: Tensor) -> dict[str, float]:
    """Shares of `KINDS` that explain target features `(m, D)`, from source features `(n, D)` of the given kinds `(n,)`.

    Two-fold cross-validation on the source gives the classifier's confusion matrix.
    """
    columns, half = one_hot(kinds).double(), len(source) // 2
    first, second = (source[:half], columns[:half]), (source[half:], columns[half:])
    answers = torch.cat([classify(*second, source[:half]), classify(*first, source[half:])])
    confusions = torch.stack([answers[kinds == number].mean(0) for number in range(len(KINDS))])
    answer = classify(source, columns, target).mean(0)
    rows = np.vstack([confusions.T.numpy(), np.full(len(KINDS), SUM_WEIGHT)])
    shares, _ = nnls(rows, np.append(answer.numpy(), SUM_WEIGHT))
    shares /= shares.sum()
    return {family: round(float(share), 3) for family, share in zip(KINDS, shares, strict=True) if share > 0.01}


def classify(features: Tensor, columns: Tensor, queries: Tensor) -> Tensor:
    """Columns `(m, K)` for the queries `(m, D)`, by Gaussian kernel ridge regression.

    Fitted to labelled features `(n, D)` and their columns `(n, K)`.
    """
    centre, deviation, usual = features.mean(0), features.std(0) + 1e-6, columns.mean(0)
    features, queries = (features - centre) / deviation, (queries - centre) / deviation
    alike, near = ((-torch.cdist(one, features).square() / features.shape[1]).exp() for one in (features, queries))
    ridge = RIDGE * torch.eye(len(features), dtype=alike.dtype)
    return near @ torch.linalg.solve(alike + ridge, columns - usual) + usual


@torch.no_grad()
def blur_features(pipeline, image: Tensor) -> Tensor:
    """Features of the blur in a photograph's middle `(D,)`: blur tokens, correlations and spectrum of the gradients."""
    image = middle(image)
    tokens = pipeline.encode_image((image * 2 - 1).to(pipeline.device), fast=True).tokens
    return torch.cat([part.flatten().float().cpu() for part in (tokens, *lag_maps(luminance(image)))]).double()


def fit_noise(photographs: list[Tensor]) -> float:
    """The level of noise that one photograph in ten exceeds: standard deviation on the scale of [0, 1]."""
    return float(torch.cat([noise_level(luminance(middle(one))) for one in photographs]).quantile(0.9))


def synthesis_like(
    folder: Path,
    model: str,
    sharp: Callable[[], PhotographSource],
    families: dict[str, float],
    noise: float,
    kept: Path,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """The blur, noise and camera to train with for the photographs of a folder, as settings of `JointConfig`.

    families: those that the model was trained on, whose share of sharp photographs is kept; the other shares are fitted
    to the folder. noise: replaced by the photographs' own where that is larger. The rest is `CAMERA`. kept: the file
    that stores the result; if it exists it is read, and `sharp` is not called. Photographs under `SMALLEST` pixels a
    side are left out; raises ValueError if none remains.
    """
    if kept.exists():
        return read_json(kept, "remove it to estimate the blur again")
    paths = list_images(folder)
    read = (to_tensor(read_image(path)) for path in paths[:: -(-len(paths) // MOST)])
    # No more than the middles is looked at, and 64 photographs of 12 megapixels would be 9 GiB.
    photographs = [middle(one)[0].clone() for one in read if min(one.shape[1:]) >= SMALLEST]
    if not photographs:
        raise ValueError(f"{folder} has no photograph of {SMALLEST} pixels a side, so its blur cannot be estimated")
    noise = max(noise, fit_noise(photographs))
    fitted = some_sharp(
        fit_families(load_pipeline(model), photographs, sharp(), noise, rounds), families.get("delta", 0.0)
    )
    found = {"families": fitted, "noise": noise, **CAMERA}
    with replacing(kept) as part:
        part.write_text(json.dumps(found) + "\n")
    return found


def some_sharp(families: dict[str, float], share: float) -> dict[str, float]:
    """The families beside a share of sharp photographs, from which a model learns to leave alone what is sharp."""
    return {"delta": share} | {family: (1 - share) * part for family, part in families.items()}
