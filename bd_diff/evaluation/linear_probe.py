"""Linear probes: ridge regression and classification from tokens, tested on held-out samples."""

import torch
from torch import Tensor

RIDGES = (1e1, 1e2, 1e3, 1e4)  # chosen by the error on half of the training samples


def fit_ridge(inputs: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Weights `(D, K)` of ridge regression from standardized `(n, D)` to centred `(n, K)`, by the kernel trick."""
    gram = inputs @ inputs.T
    return inputs.T @ torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), targets)


def predict(inputs: Tensor, targets: Tensor, new: Tensor) -> Tensor:
    """Targets `(m, K)` of `new` `(m, D)` by the linear map that fits `inputs` `(n, D)` to `targets` `(n, K)`."""
    inputs, targets, new = inputs.double(), targets.double(), new.double()
    mean, deviation, middle = inputs.mean(0), inputs.std(0) + 1e-6, targets.mean(0)
    inputs, new = (inputs - mean) / deviation, (new - mean) / deviation
    half = len(inputs) // 2

    def error(ridge: float) -> float:
        weights = fit_ridge(inputs[:half], targets[:half] - middle, ridge)
        return float((inputs[half:] @ weights + middle - targets[half:]).square().sum())

    return new @ fit_ridge(inputs, targets - middle, min(RIDGES, key=error)) + middle


def r_squared(inputs: Tensor, targets: Tensor, new: Tensor, truth: Tensor) -> float:
    """Share of the variance of `truth` `(m, K)` that is predicted; 1 is all, 0 no better than the mean, below worse."""
    missed = (predict(inputs, targets, new) - truth).square().sum()
    return float(1 - missed / (truth - targets.double().mean(0)).square().sum())


def accuracy(inputs: Tensor, classes: Tensor, new: Tensor, truth: Tensor) -> float:
    """Share of `truth` `(m,)` classified correctly, by regression onto one-hot columns."""
    columns = torch.nn.functional.one_hot(classes).double()
    return float((predict(inputs, columns, new).argmax(1) == truth).double().mean())
