"""Curricula of X-DECODE (arXiv 2504.08072): how strong the training blur may be at each epoch, counted from 0.

A level is the largest box kernel, odd, 3 to 29 pixels; `severity` makes it a share of any family's range.
"""

import math
from collections.abc import Callable

EASIEST, HARDEST = 3, 29  # pixels a side, X-DECODE


def odd(value: float) -> int:
    """2 * floor(value / 2) + 1, kept between the easiest and the hardest level."""
    return min(max(2 * math.floor(value / 2) + 1, EASIEST), HARDEST)


def every(epochs: int, hardest: int = HARDEST) -> Callable[[int], int]:
    """Growth by two pixels every `epochs` epochs, in the last of them, as in the released code."""
    return lambda epoch: min(EASIEST + 2 * ((epoch + 1) // epochs), hardest)


def exponential(epoch: int) -> int:
    """15 % growth every six epochs."""
    return odd(EASIEST * 1.15 ** (epoch / 6))


def sigmoid(epoch: int) -> int:
    """Slow, fast around epoch 50, slow again. The formula gives 1 before epoch 24, smaller than any box: 3 there."""
    return odd(HARDEST / (1 + math.exp(-0.1 * (epoch - 50))))


CURRICULA: dict[str, Callable[[int], int]] = {
    "linear": every(1),
    "stepwise": every(5),
    "slow_stepwise": every(10),
    "exponential": exponential,
    "sigmoid": sigmoid,
    "none": lambda epoch: HARDEST,
    "gopro_stepwise": every(7, hardest=19),  # the recipe for training and testing on GoPro
}


def level(curriculum: str, epoch: int) -> int:
    """The level of a curriculum at an epoch. Raises `ValueError` for a name that does not exist."""
    if curriculum not in CURRICULA:
        raise ValueError(f"there is no curriculum {curriculum!r}; the curricula are {', '.join(CURRICULA)}")
    return CURRICULA[curriculum](epoch)


def severity(level: int) -> float:
    """The level as a share in [0, 1] of the way from the easiest to the hardest: what `draw_kernels` takes."""
    return min(max((level - EASIEST) / (HARDEST - EASIEST), 0.0), 1.0)
