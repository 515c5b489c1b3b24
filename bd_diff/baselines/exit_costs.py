"""Cost and PSNR of early exits: figures for any choice of depths, from one run at every depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.data.images import crop_to, pad_to_multiple
from bd_diff.data.tiles import Grid


class Costs:
    """Multiplications (MACs) of a network's parts at given sizes, counted without running anything.

    Convolutions and linear layers only: FFTs, norms and products are not counted, as in AdaRevD's figures.
    """

    def __init__(self, network: AdaRevD):
        self.mode = FakeTensorMode()
        with self.mode:
            self.network = AdaRevD.from_config(network.config).eval()
        self.counts: dict[tuple[int, int], dict[str, int]] = {}

    def count(self, part: str, height: int, width: int) -> int:
        """MACs of the `encoder`, one sub-decoder (`step`), one `head` or the `classifier` at this size in pixels."""
        if (height, width) not in self.counts:
            self.counts[height, width] = self.count_all(height, width)
        return self.counts[height, width][part]

    def count_all(self, height: int, width: int) -> dict[str, int]:
        network, found = self.network, {}

        def counted(part: str, module: Callable, *inputs):
            with FlopCounterMode(display=False) as counter:
                output = module(*inputs)
            found[part] = counter.get_total_flops() // 2
            return output

        with self.mode, torch.no_grad():
            bottleneck, state = counted("encoder", network.encode, torch.zeros(1, 3, height, width))
            counted("step", network.decoders[0], bottleneck, state)
            counted("head", network.heads[0], state[-1])
            if network.classifier is not None:
                counted("classifier", network.classify, bottleneck, state)
        return found

    def tiled(self, grid: Grid, depths: Sequence[int], classified: bool) -> int:
        """MACs of an image whose tiles run to `depths`: encoder, overlapping tiles and, if used, the classifier."""
        step, head = (self.count(part, *grid.tile) for part in ("step", "head"))
        total = self.count("encoder", grid.height, grid.width) + sum(
            depth * step + (depth > 0) * head for depth in depths
        )
        return total + (len(depths) * self.count("classifier", *grid.tile) if classified else 0)

    def untiled(self, grid: Grid) -> int:
        """MACs of the whole image in one piece at full depth."""
        step, head, encoder = (self.count(part, grid.height, grid.width) for part in ("step", "head", "encoder"))
        return encoder + self.network.depth * step + head


@dataclass
class Case:
    """One image and its tiles at every depth: `residuals (T, N + 1, 3, h, w)`, from depth 0 (zeros) to N.

    classes `(T,)`: found by the classifier. psnr `(T, N + 1)`: in dB, of each tile by itself.
    """

    blurry: Tensor
    sharp: Tensor
    grid: Grid
    residuals: Tensor
    classes: Tensor
    psnr: Tensor

    def score(self, depths: Sequence[int]) -> float:
        """PSNR in dB of the image put together from its tiles at `depths`."""
        residual = torch.zeros(3, self.grid.height, self.grid.width)
        parts = self.residuals[range(len(depths)), list(depths)]
        self.grid.paste(residual, parts, range(len(depths)))
        restored = (self.blurry + crop_to(residual, *self.blurry.shape[-2:])).clamp(0, 1)
        return decibels(restored, self.sharp).item()


def decibels(images: Tensor, target: Tensor) -> Tensor:
    """PSNR over the last three dimensions."""
    return -10 * torch.log10((images - target).square().mean((-3, -2, -1)).clamp_min(1e-10))


@torch.no_grad()
def every_tile(network: AdaRevD, blurry: Tensor, sharp: Tensor) -> Case:
    """Run all tiles of one image `(3, H, W)` to every depth, cut and blended as in `AdaRevD.restore`."""
    padded, target = (pad_to_multiple(image[None], network.multiple)[0] for image in (blurry, sharp))
    height, width = padded.shape[-2:]
    grid = Grid(height, width, network.config.tile, network.config.overlap)
    bottleneck, state = network.encode(padded[None])
    by_tile, classes = [], []
    for tile in range(len(grid)):
        x, *parts = (grid.cut(features[0], [tile]) for features in (bottleneck, *state))
        classes.append(int(network.classify(x, parts).argmax()))
        found = [torch.zeros(3, *grid.tile)]
        for decoder, head in zip(network.decoders, network.heads, strict=True):
            parts = decoder(x, parts)
            found.append(head(parts[-1])[0])
        by_tile.append(torch.stack(found))
    residuals = torch.stack(by_tile)
    tiles, targets = (grid.cut(image, range(len(grid)))[:, None] for image in (padded, target))
    psnr = decibels((tiles + residuals).clamp(0, 1), targets)
    return Case(blurry, sharp, grid, residuals, torch.tensor(classes), psnr)


@dataclass(frozen=True)
class Outcome:
    """A choice of depths for all tiles of all images: mean depth, MACs per image on average, mean PSNR in dB."""

    mean_depth: float
    macs: float
    psnr: float


def outcome(cases: Sequence[Case], depths: Sequence[Sequence[int]], costs: Costs, classified: bool) -> Outcome:
    """Cost and PSNR of a choice of depths, one per tile of each case."""
    flat = [depth for chosen in depths for depth in chosen]
    macs = [costs.tiled(case.grid, chosen, classified) for case, chosen in zip(cases, depths, strict=True)]
    scores = [case.score(chosen) for case, chosen in zip(cases, depths, strict=True)]
    return Outcome(sum(flat) / len(flat), sum(macs) / len(macs), sum(scores) / len(scores))


def oracle_depths(case: Case, tau: float) -> list[int]:
    """The rule of the exit table on each tile's true PSNR: the depth after which one more gains less than tau."""
    gains = case.psnr.diff(dim=1) < tau  # (T, N)
    full = torch.ones(len(gains), 1, dtype=torch.bool)
    return torch.cat([gains, full], 1).int().argmax(1).tolist()


def shuffled(depths: Sequence[Sequence[int]], generator: torch.Generator) -> list[list[int]]:
    """The same depths, given to the tiles in random order."""
    flat = torch.tensor([depth for chosen in depths for depth in chosen])
    mixed = flat[torch.randperm(len(flat), generator=generator)].split([len(chosen) for chosen in depths])
    return [chosen.tolist() for chosen in mixed]


def at_equal_macs(uniform: Mapping[int, Outcome], macs: float) -> float:
    """PSNR of uniform depths at this many MACs, interpolated linearly between two depths."""
    points = sorted((found.macs, found.psnr) for found in uniform.values())
    if macs <= points[0][0]:
        return points[0][1]
    for (cheap, low), (dear, high) in zip(points, points[1:], strict=False):
        if macs <= dear:
            return low + (high - low) * (macs - cheap) / (dear - cheap)
    return points[-1][1]
