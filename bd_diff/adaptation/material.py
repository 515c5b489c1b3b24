"""What an adaptation is given: which photographs it sees, which judge it, and how much is measured around it."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bd_diff.adaptation.blur_mix import ROUNDS
from bd_diff.adaptation.judge import middle
from bd_diff.adaptation.lens import FEWEST, MOST, evenly
from bd_diff.blur.kernels import SIZE
from bd_diff.data.crops import seeded
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.data.photographs import Joined, Photographs
from bd_diff.data.pixels import as_floats
from bd_diff.data.procedural import procedural_image
from bd_diff.data.progress import progress
from bd_diff.training.joint import JointConfig

HELD_OUT = 16  # photographs at most that are judged on and never trained on: a fifth of the sharp ones
PROCEDURAL = 120  # images, at least, that blur is told with: with few, their scenes are taken for blur
JUDGED = 32  # photographs at most that the domain gap is measured on
REFERENCE = 48  # synthetic photographs that it is measured from
WHOLE = 400  # steps, from which on blur is told by all `ROUNDS`; by fewer below, a quarter at least
SHORT = 20  # steps, below which an adaptation is a rehearsal of half a minute: see `Effort`


@dataclass(frozen=True)
class Effort:
    """How much is measured around the training; in a rehearsal hardly anything, so its figures mean nothing.

    seen: photographs of the target that the kernel of a lens is looked for in. rounds: synthetic photographs of each
    family that blur is told by. held_out, procedural, judged, reference: as the constants of these names.
    """

    seen: int
    rounds: int
    held_out: int
    procedural: int
    judged: int
    reference: int


def effort_of(config: JointConfig) -> Effort:
    """The effort of an adaptation, by its number of steps."""
    if config.run.steps < SHORT:
        return Effort(FEWEST, rounds=4, held_out=2, procedural=8, judged=2, reference=4)
    share = min(1.0, config.run.steps / WHOLE)
    return Effort(MOST, round(max(1 / 4, share) * ROUNDS), HELD_OUT, PROCEDURAL, JUDGED, REFERENCE)


def folders_of(config: JointConfig) -> tuple[Path, Path, Path]:
    """The folders of blurry photographs, of sharp ones, and of the model. Raises ValueError if one is not given."""
    named = config.data.target, config.data.sharp, config.start_from
    if not all(named):
        raise ValueError("adapting needs data.target, data.sharp and start_from")
    target, sharp, model = (Path(str(folder)) for folder in named)
    return target, sharp, model


def hold_out(folder: Path, crop: int, most: int = HELD_OUT, every: int = 5) -> list[str]:
    """Names of photographs kept for validation: every so many-th, at most so many. Raises ValueError for too few."""
    paths = progress(list_images(folder), desc=f"looking through {folder}")
    large = [path.name for path in paths if min(read_image(path).size) >= crop]
    if len(large) < 2:
        raise ValueError(
            f"{folder} has {len(large)} photographs of {crop} pixels a side; adapting needs two, one for validation"
        )
    return large[:: max(2, min(every, len(large) // 2))][:most]


def held_out_paths(config: JointConfig) -> list[Path]:
    """The target's photographs that are never trained on."""
    target, _, _ = folders_of(config)
    names = Path(config.run.folder, "held_out.txt").read_text().split("\n")
    return [target / name for name in names if name]


def held_out_photographs(config: JointConfig) -> list[Tensor]:
    """The target's photographs that are judged by, `(1, 3, H, W)` in [0, 1]."""
    return photographs_of(held_out_paths(config), config, effort_of(config).held_out)


def seen_photographs(config: JointConfig) -> list[Tensor]:
    """Photographs of the target `(1, 3, H, W)` in [0, 1] that are not held out, as many as tell a lens's kernel."""
    target, _, _ = folders_of(config)
    held_out = {path.name for path in held_out_paths(config)}
    paths = [path for path in list_images(target) if path.name not in held_out]
    return photographs_of(paths, config, effort_of(config).seen)


def photographs_of(paths: list[Path], config: JointConfig, most: int) -> list[Tensor]:
    """At most so many of these that are large enough, evenly chosen."""
    found = []
    for path in evenly(paths, most):
        image = to_tensor(read_image(path))[None]
        if min(image.shape[-2:]) >= config.data.crop:
            found.append(middle(as_floats(image)).clone())
    return found


def sharp_photographs(config: JointConfig, held_out: bool = False) -> Joined:
    """Sharp photographs `(3, H, W)` to train on or, with `held_out`, those never trained on, read when asked for.

    Procedural images are added where there are too few.
    """
    _, folder, _ = folders_of(config)
    listed = config.data.exclude
    photographs = Photographs(folder, only=listed) if held_out else Photographs(folder, exclude=listed)
    wanted = effort_of(config).held_out if held_out else effort_of(config).procedural
    side, missing = config.data.window + SIZE - 1, wanted - len(photographs)
    return Joined(photographs, [procedural_image(side, seeded(held_out, index)) for index in range(missing)])
