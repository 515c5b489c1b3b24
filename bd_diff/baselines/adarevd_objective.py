"""The objectives of AdaRevD's training stages, and the measurement that its early exits are derived from."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.exits import degradation_class, psnr
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.training.pairs import BlurConfig, make_pair

FREQUENCY_WEIGHT = 0.01  # AdaRevD, released code


def frequency_loss(images: Tensor, target: Tensor) -> Tensor:
    """Mean |y - y'| + 0.01 * mean |F(y) - F(y')|, F the unnormalised half spectrum; in float32 under autocast."""
    difference = (images - target).float()
    return difference.abs().mean() + FREQUENCY_WEIGHT * torch.fft.rfft2(difference).abs().mean()


class RestorationObjective(nn.Module):
    """Stages `nafnet` and `decoders`: the frequency loss, averaged over the results at every depth."""

    def __init__(self, network: NAFNet | AdaRevD, blur: BlurConfig):
        super().__init__()
        self.network, self.blur = network, blur

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        blurry, sharp = make_pair(batch, self.blur, generator)
        losses = [frequency_loss(result, sharp) for result in self.network.every_depth(blurry)]
        return {"loss": torch.stack(losses).mean(), "first": losses[0], "last": losses[-1]}


class ClassifierObjective(nn.Module):
    """Stage `classifier`: cross-entropy with each crop's degradation class; everything but the classifier is frozen."""

    def __init__(self, network: AdaRevD, blur: BlurConfig):
        super().__init__()
        if network.classifier is None:
            raise ValueError("this AdaRevD has no classifier; call add_classifier first")
        self.network, self.blur = network.requires_grad_(False), blur
        self.network.classifier.requires_grad_(True)

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        blurry, sharp = make_pair(batch, self.blur, generator)
        logits = self.network.classify(*self.network.encode(blurry))
        classes = degradation_class(blurry, sharp, self.network.config.thresholds)
        accuracy = (logits.argmax(1) == classes).float().mean()
        return {"loss": F.cross_entropy(logits, classes), "accuracy": accuracy}


@torch.no_grad()
def validate_classifier(objective: ClassifierObjective, pairs: Iterable[tuple[Tensor, Tensor]], step: int) -> dict:
    """Mean cross-entropy and accuracy on held-out pairs: `validate(step)` for `fit`."""
    device = next(objective.parameters()).device
    batches = ({"blurry": blurry.to(device), "sharp": sharp.to(device)} for blurry, sharp in pairs)
    found = [objective(batch, Generator()) for batch in batches]
    return {name: torch.stack([values[name] for values in found]).mean().item() for name in found[0]}


@dataclass(frozen=True)
class Measured:
    """What held-out crops say about exits, for K classes and N sub-decoders.

    psnr: `(K, N + 1)`, mean PSNR in dB of the crops that the classifier puts in a class, after 0, ..., N sub-decoders.
    counts: `(K,)`, the number of these crops. confusion: `(K, K)`, crops by true class (row) and by the classifier's
    (column).
    """

    psnr: Tensor
    counts: Tensor
    confusion: Tensor

    def report(self) -> str:
        """Text: accuracy beside that of always naming the commonest class; crops, recall and PSNR of each class."""
        total, commonest = self.confusion.sum(), self.confusion.sum(1).max()
        lines = [f"accuracy {self.confusion.trace() / total:.3f} (always the commonest class: {commonest / total:.3f})"]
        for index, (means, truth) in enumerate(zip(self.psnr.tolist(), self.confusion, strict=True)):
            recall = f"{truth[index] / truth.sum():.2f}" if truth.sum() else "-"
            depths = " ".join(f"{mean:.2f}" for mean in means) if self.counts[index] else "-"
            lines.append(f"class {index}: {int(self.counts[index])} crops, recall {recall}, dB by depth {depths}")
        return "\n".join(lines)


@torch.no_grad()
def measure_exits(network: AdaRevD, pairs: Iterable[tuple[Tensor, Tensor]]) -> Measured:
    """Run every depth on held-out pairs (blurry, sharp), `(B, 3, H, W)` of at most a tile each, and keep the means.

    `exit_psnr` and `exit_counts` of the network's config are set; `network.set_exits(tau)` then derives the table.
    """
    classes, depths = len(network.config.thresholds) + 1, network.depth + 1
    sums, confusion = torch.zeros(classes, depths, dtype=torch.float64), torch.zeros(classes, classes)
    for blurry, sharp in pairs:
        found = network.classify(*network.encode(blurry)).argmax(1).cpu()
        results = [blurry, *network.every_depth(blurry)]
        decibels = torch.stack([psnr(result.clamp(0, 1), sharp) for result in results], 1).double().cpu()
        sums.index_add_(0, found, decibels)
        truth = degradation_class(blurry, sharp, network.config.thresholds).cpu()
        confusion.index_put_((truth, found), torch.ones(len(found)), accumulate=True)
    counts = confusion.sum(0)
    measured = Measured(sums / counts.clamp_min(1)[:, None], counts, confusion)
    network.register_to_config(exit_psnr=measured.psnr.tolist(), exit_counts=counts.int().tolist())
    return measured
