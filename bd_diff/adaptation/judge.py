"""Keeps or rejects what adapting gave by what photographs that it never saw say, without truth, in default mode.

Synthetic pairs cannot judge: they are made of the same guess of the blur that the model was trained on. A photograph
can: a wrong kernel leaves more of it unexplained, and a wrong result is less sharp or rings
(`bd_diff.adaptation.signs`).
`tests/benches/bench_judge.py` measures how far that follows the true gain.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from bd_diff.adaptation.signs import score, unlikely
from bd_diff.pipeline import BDDiffPipeline

SIDE = 384  # pixels a side, at most, of the middle of a photograph that is judged
MARGIN = 0.01  # of the score, by which a candidate must be better on average (ours, see the bench)
KERNEL = 0.005  # the margin where kernels alone differ and are judged by themselves (ours)
CHANCE = 0.05  # share of the candidates that change nothing which may pass (one-sided t test)
HARDLY = 0.3  # levels of 255: a mean change below which nothing is gained, whatever the margin (ours)


@dataclass(frozen=True)
class Compared:
    """A candidate beside the model one began with, over the same photographs.

    better: mean of what the score falls by, about a share of what is unexplained or unsharp; error: its standard error;
    wins: the share of the photographs that are better; changed: mean change of the results, in levels of 255;
    photographs: how many. by_kernel: as for `judge`.
    """

    better: float
    error: float
    wins: float
    changed: float
    photographs: int
    by_kernel: bool = False

    @property
    def why_not(self) -> str | None:
        """Why it is rejected, in words; None where it is not."""
        if not math.isfinite(self.better + self.changed):
            return "some of its results are no photographs"
        if self.changed < HARDLY:
            return f"its results hardly differ ({self.changed:.1f} of 255 levels)"
        margin = KERNEL if self.by_kernel else MARGIN
        if self.better < 0:
            signs = "worse explained" if self.by_kernel else "worse explained or less sharp"
            return f"the held-out photographs are {signs}, by {-self.better:.1%}"
        by_chance = float(stdtrit(max(self.photographs - 1, 1), 1 - CHANCE)) * self.error
        if self.better < max(margin, by_chance) or self.wins < 0.5:
            return f"the held-out photographs are better by {self.better:.1%} only, +- {self.error:.1%}"
        return None


@dataclass(frozen=True)
class Judgement:
    """Which candidate is kept, None for the model one began with, and all comparisons by name."""

    kept: str | None
    compared: dict[str, Compared]
    photographs: int

    def sentence(self) -> str:
        """The outcome in plain words."""
        if not self.compared:
            return "rejected: training gained nothing. The result is the model you began with."
        if self.kept:
            best = self.compared[self.kept]
            signs = "explained better" if best.by_kernel else "explained better or sharper"
            return (
                f"Kept: {self.photographs} held-out photographs are {signs}, by {best.better:.1%} on average, and "
                f"{best.wins:.0%} of them gain."
            )
        reasons = "; ".join(f"{name}: {one.why_not}" for name, one in self.compared.items())
        return (
            f"rejected: on {self.photographs} held-out photographs nothing was better than the model you began with, "
            f"so that is the result ({reasons})."
        )

    def beside(self, other: "Judgement | None") -> "Judgement":
        """This judgement with the comparisons of another of the same photographs, which kept nothing."""
        return replace(self, compared=(other.compared if other else {}) | self.compared)

    def figures(self) -> dict[str, Any]:
        """What a JSON report holds."""
        return {"kept": self.kept, "photographs": self.photographs} | {
            name: asdict(one) for name, one in self.compared.items()
        }


def judge(
    begun: BDDiffPipeline,
    candidates: Mapping[str, BDDiffPipeline],
    photographs: list[Tensor],
    by_kernel: bool = False,
) -> Judgement:
    """Compare candidates with the model one began with, on photographs `(1, 3, H, W)` in [0, 1] that none has seen.

    by_kernel: the candidates differ from it in their kernels alone, so these are judged, by `unlikely`. What is made
        of them says less there: a kernel that is too wide makes results sharper than the truth.
    """
    photographs = [middle(one) for one in photographs]
    before = [made_by(begun, one, by_kernel) for one in photographs]
    compared = {}
    for name, candidate in candidates.items():
        after = [made_by(candidate, one, by_kernel) for one in photographs]
        compared[name] = compare(before, after, by_kernel)
    passed = [name for name, one in compared.items() if one.why_not is None]
    kept = max(passed, key=lambda name: compared[name].better, default=None)
    return Judgement(kept, compared, len(photographs))


def middle(image: Tensor) -> Tensor:
    """The centre of `(1, 3, H, W)`, no side above `SIDE` pixels."""
    top, left = (max(side - SIDE, 0) // 2 for side in image.shape[-2:])
    return image[..., top : top + SIDE, left : left + SIDE]


def made_by(pipeline: BDDiffPipeline, photograph: Tensor, by_kernel: bool = False) -> tuple[Tensor, float]:
    """A photograph's result in default mode `(1, 3, H, W)` in [0, 1], and its `score`; `by_kernel` as for `judge`."""
    pipeline.set_progress_bar_config(disable=True)
    made: Any = pipeline(photograph, generator=torch.Generator().manual_seed(0), output_type="pt")
    image, kernel = made.images.cpu(), made.kernels.cpu()
    return image, unlikely(photograph, kernel) if by_kernel else score(photograph, image, kernel)


def compare(before: list[tuple[Tensor, float]], after: list[tuple[Tensor, float]], by_kernel: bool = False) -> Compared:
    """Compare two models' results and signs for the same photographs; `by_kernel` as for `judge`. Pictures of one
    colour say nothing, and have signs that are not finite.
    """
    both = [pair for pair in zip(before, after, strict=True) if math.isfinite(pair[0][1])]
    if not both:
        return Compared(0.0, 0.0, 0.0, 0.0, 0, by_kernel)
    less = [old - new for (_, old), (_, new) in both]
    mean, count = sum(less) / len(less), len(less)
    spread = math.sqrt(sum((one - mean) ** 2 for one in less) / max(count - 1, 1))
    changed = 255 * sum(float((new - old).abs().mean()) for (old, _), (new, _) in both)
    wins = sum(one > 0 for one in less) / count
    return Compared(mean, spread / math.sqrt(count), wins, changed / count, count, by_kernel)
